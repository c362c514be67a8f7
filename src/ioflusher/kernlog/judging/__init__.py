"""What the stacks of a log come to together: who waits for whom, and what that is."""
