"""Who serves what on a machine: inferred from the facts of a Snapshot by `infer.services`."""
