"""From raw MIMIC to pairs, and checks of a data set before it is used."""
