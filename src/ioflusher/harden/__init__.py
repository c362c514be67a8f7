"""The rest of a forward-progress guarantee: locked memory, scheduling, OOM score."""
