"""What one stack shows: the tables of functions and programs, a stack taken apart, and that in words."""
