"""A run as pages and pictures for people: the report, the contact sheet, the plots, and what other pages share."""
