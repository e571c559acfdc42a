"""Methods that differentiate the score: at the input, around it, or along a path to it."""
