"""The storage graph over a Snapshot: what waits for what, and in which circles; `build.storage_graph`."""
