"""Kinds of data: how each is read, prepared and shown."""
