"""What runs inside a guest. It imports as little as it can: a guest under emulation is slow."""
