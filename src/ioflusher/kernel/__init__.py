"""Facts about Linux: constants with their source, system calls, pure parsers of kernel text."""
