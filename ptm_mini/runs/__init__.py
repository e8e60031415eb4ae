"""What is saved of a run, loaded from it, and asked of it."""
