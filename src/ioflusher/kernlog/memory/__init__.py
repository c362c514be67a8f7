"""A kernel's own memory, read with drgn: stacks, and what each really waits for."""
