"""Methods made of others, from more than one family."""
