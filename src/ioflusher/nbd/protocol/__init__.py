"""The NBD protocol without any I/O: layouts, messages, the state machine of either end, the handshake."""
