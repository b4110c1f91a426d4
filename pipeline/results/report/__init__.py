"""Report of a run for people: the page, the contact sheet, the plots, and helpers that other pages share."""
