"""Methods that pass something else than the gradient back through each operation."""
