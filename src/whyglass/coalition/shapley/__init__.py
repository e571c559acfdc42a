"""Shapley values and their kin: exact, sampled and by regression."""
