"""Composite operations in elementary ones, whose calls have the rules."""
