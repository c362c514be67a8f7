"""Where in a process the code of a detour can stand.

Executable mappings are whole pages; what they map rarely ends with a page. The bytes behind the end of the
kernel's own library (the vdso), or of a program's text, are zeros that nobody executes and nobody reads. A
tracer may write there even though the process may not: the process gets a page of its own. Nothing is
mapped, nothing becomes writable, and the zeros are put back when the thread is back in its program.

Code that is found there is what a killed tool left behind, and a thread may still be in it. So zeros are
taken first, and such a slot only where every thread was seen elsewhere.
"""

import os
import time
from pathlib import Path

from ioflusher.flag.attach.arch import WORD, Architecture
from ioflusher.flag.attach.outcome import Refused, ThreadResult
from ioflusher.flag.attach.tracee import Tracee
from ioflusher.flag.threads import thread_state
from ioflusher.kernel.maps import Mapping, parse_maps

_VDSO = b"[vdso]"
_PER_MAPPING = 16
_PATIENCE, _PAUSE = 0.2, 0.002  # seconds; for threads that run just now


class Slots:
    """The slots of one process: one serves thread after thread, another where a thread is stuck in it."""

    def __init__(self, architecture: Architecture) -> None:
        self._architecture = architecture
        self._current: int | None = None
        self._given_up: set[int] = set()

    def at(self, tracee: Tracee, directory: str, address: int) -> int:
        """The address of a free slot in the memory of the stopped thread, in reach of `address`.

        Raises:
            Refused: where there is none.
        """
        current = self._current
        # The process may have executed another program since.
        if current is None or not self._reaches(current, address) or not self._empty(tracee, current):
            current = self._search(tracee, directory, address)
        self._current = current
        return current

    def clear(self, tracee: Tracee, slot: int) -> None:
        """Put the zeros back, once the stopped thread has its registers of before."""
        tracee.write(slot, bytes(self._architecture.slot_size))

    def give_up(self, slot: int) -> None:
        """Never use the slot again: a thread may come by later."""
        self._given_up.add(slot)
        self._current = None

    def _search(self, tracee: Tracee, directory: str, address: int) -> int:
        maps = parse_maps(Path(f"{directory}/{tracee.tid}/maps").read_bytes())
        candidates = [mapping for mapping in maps if _usable(mapping)]
        candidates.sort(key=lambda mapping: (mapping.path != _VDSO, abs(mapping.end - address)))
        used: list[int] = []
        for mapping in candidates:
            for place in range(1, _PER_MAPPING + 1):
                slot = mapping.end - place * self._step
                if slot in self._given_up or slot < mapping.start or not self._reaches(slot, address):
                    continue
                if self._empty(tracee, slot):
                    return slot
                if self._ours(tracee, slot):
                    used.append(slot)
        places = _whereabouts(directory) if used else None
        if places is not None:
            for slot in used:
                if not any(slot <= place <= slot + self._step for place in places):
                    return slot
        raise Refused(ThreadResult.UNSUITABLE, "none of its executable mappings has room for the way back")

    @property
    def _step(self) -> int:
        size = self._architecture.slot_size
        return size + -size % (2 * WORD)

    def _empty(self, tracee: Tracee, slot: int) -> bool:
        found = tracee.read(slot, self._step)
        return found is not None and not any(found)

    def _ours(self, tracee: Tracee, slot: int) -> bool:
        found = tracee.read(slot, self._architecture.slot_size)
        return found is not None and self._architecture.is_detour(found)

    def _reaches(self, slot: int, address: int) -> bool:
        reach = self._architecture.reach
        return reach is None or abs(slot - address) < reach


def _whereabouts(directory: str) -> set[int] | None:
    """Where each thread of the process was seen just now; None where one runs on and on, or must not be seen.

    A thread that waits, or is stopped, shows the address with which it goes on (proc_pid_syscall of
    fs/proc/base.c).
    """
    places: dict[str, int] = {}
    deadline = time.monotonic() + _PATIENCE
    while True:
        unseen = [tid for tid in os.listdir(directory) if tid not in places]
        for tid in unseen:
            state = thread_state(f"{directory}/{tid}")
            if state is None or state.ended:
                places[tid] = 0
                continue
            try:
                words = Path(f"{directory}/{tid}/syscall").read_bytes().split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            except PermissionError:
                return None
            if words != [b"running"]:
                places[tid] = int(words[-1], 16)
        if not unseen:
            return set(places.values())
        if time.monotonic() > deadline:
            return None
        time.sleep(_PAUSE)


def _usable(mapping: Mapping) -> bool:
    """Whether the mapping holds a program's or the kernel's code, and a copy of it can be written to."""
    named = mapping.path == _VDSO or mapping.path.startswith(b"/")
    return named and mapping.executable and mapping.permissions.endswith("p")
