"""A FUSE file system with one file: python -m ioflusher.lab.daemons.fuse_file --store FILE MOUNTPOINT.

It shows FILE, under its own name, as the only file at MOUNTPOINT, says so, and serves it until SIGTERM or
SIGINT. Several threads read requests from /dev/fuse, each with memory of its own, so that as many requests
are under way at once. It speaks the kernel's protocol itself (`ioflusher.kernel.fuse`) and needs root.
"""

import argparse
import contextlib
import errno
import mmap
import os
import stat

from ioflusher.kernel import fuse
from ioflusher.kernel.fuse import Opcode, RequestHeader
from ioflusher.kernel.syscalls import MNT_DETACH, mount, umount
from ioflusher.lab.daemons.hardening import Workers, option_parser, run, take_rest, take_state
from ioflusher.lab.daemons.store import FileStore

BLOCK = 4096
FILE_ID = fuse.ROOT_ID + 1
ROOT_MODE = stat.S_IFDIR | 0o755
FILE_MODE = stat.S_IFREG | 0o600
VALID_S = 3600  # nothing changes behind the kernel's back
BACKGROUND = 64


class OneFile:
    """The file system: answers to requests, without I/O of its own but the store's.

    `flags` are those of INIT that are wanted where the kernel has them.
    """

    def __init__(self, store: FileStore, name: bytes, *, largest: int, flags: int) -> None:
        self._store = store
        self._name = name
        self._largest = largest
        self._flags = flags

    def answer(self, header: RequestHeader, body: memoryview, data: memoryview) -> bytes | memoryview:
        """The body of the answer to a request.

        Args:
            header: of the request.
            body: the request's own.
            data: memory for what is read, and where a WRITE's data lies.

        Raises:
            OSError: the errno is the answer.
        """
        match header.opcode:
            case Opcode.READ:
                wanted = fuse.transfer(body)
                size = max(0, min(wanted.size, self._store.size - wanted.offset))
                self._store.read_into(data[:size], wanted.offset)
                return data[:size]
            case Opcode.WRITE:
                wanted = fuse.transfer(body)
                if wanted.offset + wanted.size > self._store.size:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
                self._store.write(data[: wanted.size], wanted.offset)
                return fuse.write_answer(wanted.size)
            case Opcode.FSYNC:
                self._store.flush()
            case Opcode.INIT:
                offer = fuse.kernel_offer(body)
                return fuse.init_answer(offer, self._flags, BACKGROUND, self._largest, BLOCK)
            case Opcode.LOOKUP:
                if header.node != fuse.ROOT_ID or bytes(body).rstrip(b"\0") != self._name:
                    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
                return fuse.entry_answer(FILE_ID, self._attributes(FILE_ID), VALID_S)
            case Opcode.GETATTR | Opcode.SETATTR:
                return fuse.attr_answer(self._attributes(header.node), VALID_S)
            case Opcode.OPEN | Opcode.OPENDIR:
                return fuse.open_answer()
            case Opcode.READDIR:
                entries = ((b".", fuse.ROOT_ID), (b"..", fuse.ROOT_ID), (self._name, FILE_ID))
                return b"".join(
                    fuse.directory_entry(
                        node, number + 1, ROOT_MODE if node == fuse.ROOT_ID else FILE_MODE, name
                    )
                    for number, (name, node) in enumerate(entries)
                    if number >= fuse.transfer(body).offset
                )
            case Opcode.STATFS:
                return fuse.statfs_answer(self._store.size // BLOCK, 0, BLOCK)
            case Opcode.FLUSH | Opcode.RELEASE | Opcode.RELEASEDIR | Opcode.ACCESS | Opcode.DESTROY:
                pass
            case _:
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return b""

    def _attributes(self, node: int) -> bytes:
        if node == fuse.ROOT_ID:
            return fuse.attributes(node, ROOT_MODE, 0, BLOCK)
        return fuse.attributes(node, FILE_MODE, self._store.size, BLOCK)


class FuseChannel:
    """One thread's way to the kernel: an open /dev/fuse and memory for one request.

    A request is read into two parts, so that the data of a WRITE begins at a page, as O_DIRECT needs it.
    Other requests are short: what of them lies in the second part is put behind the first.
    """

    def __init__(self, fd: int, files: OneFile, largest: int) -> None:
        self._fd = fd
        self._files = files
        self._head = bytearray(fuse.WRITE_HEAD_BYTES)
        size = max(largest, fuse.MIN_READ_BUFFER)
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
        self._data = memoryview(memory)

    def serve(self) -> None:
        """Answer requests until the file system is unmounted."""
        while self.serve_one():
            pass

    def serve_one(self) -> bool:
        """Answer one request; False once the file system is unmounted.

        Raises:
            OSError: the kernel gives no request or takes no answer.
        """
        try:
            length = os.readv(self._fd, [self._head, self._data])
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                return True  # the request was taken back
            raise
        if not length:
            return False
        head = memoryview(self._head)
        header, begin = fuse.request_header(head)
        if header.opcode == Opcode.WRITE or length <= len(head):
            body = head[begin : min(length, len(head))]
        else:
            body = memoryview(bytes(head[begin:]) + bytes(self._data[: length - len(head)]))
        answer: bytes | memoryview = b""
        number = 0
        try:
            answer = self._files.answer(header, body, self._data)
        except OSError as error:
            number = error.errno or errno.EIO
        if header.opcode not in fuse.UNANSWERED:
            with contextlib.suppress(FileNotFoundError):  # the request was interrupted
                os.writev(self._fd, [fuse.answer_header(header.unique, len(answer), number), answer])
        return True


def main() -> int:
    """The program."""
    parser = option_parser("ioflusher.lab.daemons.fuse_file", "Show a file through a FUSE file system.")
    parser.add_argument("mountpoint")
    parser.add_argument("--threads", type=int, metavar="N", default=4, help="requests at once (4)")
    parser.add_argument("--writeback", action="store_true", help="the kernel's write-back cache for the file")
    options = parser.parse_args()
    if not 1 <= options.threads <= 64:
        parser.error(f"--threads: expected 1 to 64, found {options.threads}")
    take_state(options)
    store = FileStore(options.store, direct=options.direct)
    workers = Workers()
    _serve(options, store, workers)
    return workers.join()


def _serve(options: argparse.Namespace, store: FileStore, workers: Workers) -> None:
    largest = 256 * BLOCK  # FUSE_MAX_MAX_PAGES
    flags = fuse.ASYNC_READ | fuse.BIG_WRITES | fuse.MAX_PAGES
    if options.writeback:
        flags |= fuse.WRITEBACK_CACHE
    name = os.path.basename(options.store)
    files = OneFile(store, os.fsencode(name), largest=largest, flags=flags)
    fd = os.open(fuse.DEVICE, os.O_RDWR | os.O_CLOEXEC)
    channels = [FuseChannel(fd, files, largest) for _ in range(options.threads)]
    take_rest(options)
    mount("ioflusher", options.mountpoint, "fuse", 0, fuse.mount_options(fd, ROOT_MODE))
    try:
        for channel in channels:
            workers.start(channel.serve)
        print(f"serving {os.path.join(options.mountpoint, name)}", flush=True)
        workers.wait()
    finally:
        umount(options.mountpoint, MNT_DETACH)


if __name__ == "__main__":
    run(main)
