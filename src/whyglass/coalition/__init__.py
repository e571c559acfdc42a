"""Methods that leave features out and see what the score does: any callable will do."""
