"""Experiments rendered for the terminal, as JSON and as HTML."""
