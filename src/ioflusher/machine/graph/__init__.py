"""The storage graph over a Snapshot: what waits for what, and in which cycles; `build.storage_graph`."""
