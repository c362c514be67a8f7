"""Kernel log text to task reports, and what the stacks in them say."""
