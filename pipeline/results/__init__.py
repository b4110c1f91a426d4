"""Results of a segmentation run for analysts: schemas, scores, a reader, a report and a verifier."""
