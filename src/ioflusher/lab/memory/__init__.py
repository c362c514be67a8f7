"""Evidence from a guest's memory, read from outside when nothing in the guest speaks any more.

QEMU dumps the memory into a file. `dump.py` finds in it what the kernel tells a debugger, `btf.py` and
`types.py` its types; `kernel.py` makes a drgn program of these, and `look.py` asks it. Its answer is the
record in `evidence.py`.
"""
