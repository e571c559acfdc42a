"""Differences from a baseline: DeepLIFT, Deep SHAP and weight of evidence."""
