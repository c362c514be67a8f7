"""Reading a machine, live or recorded, into a Snapshot; `machine.collect` in here is the entry."""
