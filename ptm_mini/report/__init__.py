"""What is printed, written and drawn of runs."""
