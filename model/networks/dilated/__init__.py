"""Networks of the dilated family: front end, context module, first weights and loss."""
