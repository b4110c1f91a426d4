"""Training by recipe: front end, context module, then both jointly, in a plain torch loop that Ray Train starts."""
