"""Training: the table of methods, figures, cost, the one loop (fit), the stages in their order."""
