"""What was said against what happened."""
