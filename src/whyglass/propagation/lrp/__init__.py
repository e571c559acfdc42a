"""Layer-wise relevance propagation: its rules as data, composites of them, and the methods."""
