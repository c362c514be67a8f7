"""The NBD protocol without I/O, a server, its back ends, and the kernel's client."""
