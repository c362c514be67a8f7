"""Small storage daemons of our own, for stacks that a distribution has no simple server for.

Each is a program: python -m ioflusher.lab.daemons.NAME. They load the standard library alone, so that they
start soon in a guest under emulation (python -S), store into a file as most daemons do, and set the state
themselves or are told not to. What they have for forward progress is in `hardening`.
"""
