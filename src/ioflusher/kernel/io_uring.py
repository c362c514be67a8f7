"""A ring of io_uring that sends commands to drivers (IORING_OP_URING_CMD), as ublk is spoken to.

Entries are 128 bytes long, because a driver's command may not fit into 64 (IORING_SETUP_SQE128, since 5.19).

Source: include/uapi/linux/io_uring.h, io_uring/io_uring.c (6.1, 6.12). The kernel and this process share the
ring's memory; what orders their accesses is io_uring_enter itself: entries are written before it is called,
completions are looked for after it returned.
"""

import errno
import mmap
import os
import struct
from collections.abc import Iterator

from ioflusher.kernel.syscalls import io_uring_enter, io_uring_setup

# include/uapi/linux/io_uring.h
IORING_SETUP_SQE128 = 1 << 10
IORING_ENTER_GETEVENTS = 1 << 0
IORING_OP_URING_CMD = 46
IORING_OFF_SQ_RING = 0
IORING_OFF_SQES = 0x10000000

_PARAMETERS_BYTES = 120  # struct io_uring_params
_SQ_ENTRIES, _CQ_ENTRIES = 0, 4
_SETUP_FLAGS = 8
_SQ_OFF, _CQ_OFF = 40, 80  # struct io_sqring_offsets, struct io_cqring_offsets
_SQE_BYTES = 128
_SQE_COMMAND = 48  # where the driver's command begins in an entry
_CQE_BYTES = 16
# struct io_uring_sqe up to the driver's command: opcode, flags, ioprio, fd, cmd_op with its padding, four
# fields that a command does not use, user_data, eight bytes more
_SQE = struct.Struct("=BBHiIIQIIQQ")
_CQE = struct.Struct("=Qi")


class CommandRing:
    """A ring that one thread fills and empties.

    Args:
        entries: how many commands may be under way at once.

    Raises:
        OSError: where this kernel or its settings have no io_uring, or none with entries of 128 bytes.
    """

    def __init__(self, entries: int) -> None:
        parameters = bytearray(_PARAMETERS_BYTES)
        struct.pack_into("=I", parameters, _SETUP_FLAGS, IORING_SETUP_SQE128)
        self._fd = io_uring_setup(entries, parameters)
        sq_entries, cq_entries = struct.unpack_from("=II", parameters, _SQ_ENTRIES)
        # head, tail, ring_mask, ring_entries, flags, dropped, array; and head, tail, ring_mask,
        # ring_entries, overflow, cqes
        sq = struct.unpack_from("=7I", parameters, _SQ_OFF)
        cq = struct.unpack_from("=6I", parameters, _CQ_OFF)
        length = max(sq[6] + 4 * sq_entries, cq[5] + _CQE_BYTES * cq_entries)
        self._rings = mmap.mmap(self._fd, length, offset=IORING_OFF_SQ_RING)
        self._sqes = mmap.mmap(self._fd, _SQE_BYTES * sq_entries, offset=IORING_OFF_SQES)
        self._words = memoryview(self._rings).cast("I")
        self._sq_tail, self._sq_array = sq[1] // 4, sq[6] // 4
        self._cq_head, self._cq_tail, self._cqes = cq[0] // 4, cq[1] // 4, cq[5]
        self._sq_mask, self._cq_mask = self._words[sq[2] // 4], self._words[cq[2] // 4]

    def send(self, fd: int, operation: int, command: bytes, tag: int) -> None:
        """Hand a command to the driver behind `fd`; its completion carries the tag.

        Raises:
            OSError: the kernel took none.
        """
        tail = self._words[self._sq_tail]
        index = tail & self._sq_mask
        place = index * _SQE_BYTES
        _SQE.pack_into(self._sqes, place, IORING_OP_URING_CMD, 0, 0, fd, operation, *[0] * 4, tag, 0)
        self._sqes[place + _SQE_COMMAND : place + _SQE_BYTES] = command.ljust(
            _SQE_BYTES - _SQE_COMMAND, b"\0"
        )
        self._words[self._sq_array + index] = index
        self._words[self._sq_tail] = (tail + 1) & 0xFFFFFFFF
        while True:
            try:
                io_uring_enter(self._fd, 1, 0, 0)
                return
            except OSError as error:
                if error.errno not in (errno.EINTR, errno.EAGAIN, errno.EBUSY):
                    raise

    def completed(self) -> Iterator[tuple[int, int]]:
        """Tag and result of each command that has completed; waits where none has.

        Raises:
            OSError: the kernel did not wait.
        """
        head = self._words[self._cq_head]
        while head == self._words[self._cq_tail]:
            try:
                io_uring_enter(self._fd, 0, 1, IORING_ENTER_GETEVENTS)
            except InterruptedError:
                continue
        while head != self._words[self._cq_tail]:
            tag, result = _CQE.unpack_from(self._rings, self._cqes + (head & self._cq_mask) * _CQE_BYTES)
            head = (head + 1) & 0xFFFFFFFF
            self._words[self._cq_head] = head
            yield tag, result

    def close(self) -> None:
        """Give the ring back; commands under way are cancelled."""
        os.close(self._fd)
