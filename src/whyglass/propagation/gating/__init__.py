"""Methods that change which signals pass a nonlinearity backwards."""
