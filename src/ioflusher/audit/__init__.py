"""Judgement on a Snapshot: which storage daemons can wait for themselves, and what to do about it."""
