"""One look, and one file for each kind of figure and table."""
