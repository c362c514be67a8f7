"""The kernel mechanism itself, executable: what PR_SET_IO_FLUSHER does to allocation, reclaim and writeback.

Pure: no I/O, no clock but the model's own. Names are the kernel's, verbatim, each with its source file.
"""
