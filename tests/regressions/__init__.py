"""What went wrong once, each by the number of its issue: it is not to come back."""
