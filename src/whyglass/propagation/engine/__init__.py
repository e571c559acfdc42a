"""Interception of operations, and how composite operations fall into elementary ones."""
