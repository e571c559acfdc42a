"""Methods that read attention matrices."""
