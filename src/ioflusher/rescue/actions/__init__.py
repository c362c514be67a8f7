"""The ways to end a freeze, a module each."""
