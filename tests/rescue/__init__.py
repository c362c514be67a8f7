"""Tests of `ioflusher rescue` and `ioflusher guard`."""
