"""Any log, by name or as a stream, to records: lines, frames, heads, lockdep's reports, events."""
