"""Training by recipe: front end, context module, joint. The loop is plain torch; Ray Train only starts it."""
