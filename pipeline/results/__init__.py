"""What a run leaves for analysts: schemas, scores, a reader, a report and a verifier."""
