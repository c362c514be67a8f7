"""Keep user-space storage daemons out of the memory-reclaim deadlock: PR_SET_IO_FLUSHER, done right.

Importing this package loads nothing outside the standard library, because daemons load it.
"""

from ioflusher.errors import IoflusherError

__version__ = "0.1.0.dev0"

__all__ = ["IoflusherError", "__version__"]
