"""Means and variances passed forwards: DASP."""
