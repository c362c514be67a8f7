"""Ending a freeze: what is frozen, what could end it, doing that, and a service that does it alone."""
