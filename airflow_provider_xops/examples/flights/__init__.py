"""New York's flights of 2013: predict, before departure, whether a flight arrives more than 15 minutes
late."""
