"""A small resident service that ends freezes: the standard library alone, locked, real time, in the state."""
