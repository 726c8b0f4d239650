"""What a fitted surrogate says: scores of its predictions, and which inputs matter to it."""
