"""The IO_FLUSHER state: read it, scope it, run a program under it."""
