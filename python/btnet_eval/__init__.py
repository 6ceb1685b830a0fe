"""Evaluation of face embeddings: protocols and metrics on any `images -> embeddings`, with NumPy alone."""
