"""An iSCSI target outside the guest: tgtd, as an ordinary user, behind a relay that can fail."""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from ioflusher.lab.errors import LabError
from ioflusher.lab.relay import Relay
from ioflusher.lab.vm import DIRECTORY_PREFIX
from ioflusher.support.programs import ProgramError, find_program, run, start
from ioflusher.support.temporary import OwnedDirectory

TARGET = "iqn.2026-01.lab.ioflusher:outside"
START_DEADLINE_S = 20.0
STEP_DEADLINE_S = 20.0
END_DEADLINE_S = 5.0
LAST_LINES = 8


class IscsiRemote:
    """The target, as `ioflusher.lab.remote` uses it.

    Attributes:
        port: where it is reached on this machine's loopback.
    """

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.port = relay.port

    def delay(self, seconds: float | None) -> None:
        """What is sent takes so much longer from now on; None: it does not arrive."""
        self._relay.gate.delay(seconds)

    def cut(self, *, refusing: bool) -> None:
        """Cut the connections, and take none until `take_again` where it is refusing."""
        self._relay.refusing = refusing
        self._relay.hang_up()

    def take_again(self) -> None:
        """Take new connections."""
        self._relay.refusing = False


@contextlib.contextmanager
def iscsi_remote(size_bytes: int) -> Iterator[IscsiRemote]:
    """A target with one unit of that size, for as long as it is needed.

    Raises:
        LabError: tgtd is not installed, or does not serve.
    """
    with OwnedDirectory(DIRECTORY_PREFIX) as owned:
        unit = owned.path / "unit"
        with unit.open("wb") as file:
            file.truncate(size_bytes)
        with _Tgtd(owned.path) as tgtd:
            tgtd.first("--mode=target", "--op=new", "--tid=1", f"--targetname={TARGET}")
            # where it cannot have its port it goes on with others
            if f"127.0.0.1:{tgtd.port}," not in tgtd.tell("--mode=portal", "--op=show"):
                raise tgtd.failed(f"does not listen at port {tgtd.port}")
            tgtd.tell("--mode=logicalunit", "--op=new", "--tid=1", "--lun=1", f"--backing-store={unit}")
            tgtd.tell("--mode=target", "--op=bind", "--tid=1", "--initiator-address=ALL")
            with Relay(("127.0.0.1", tgtd.port)) as relay:
                yield IscsiRemote(relay)


class _Tgtd:
    """The daemon, which ends with this process, and what tgtadm tells it."""

    def __init__(self, directory: Path) -> None:
        # its socket for tgtadm would else lie where only root may make one
        self._environment = ("env", f"TGT_IPC_SOCKET={directory / 'tgtd'}")
        self._admin = (*self._environment, find_program("tgtadm", package="tgt"), "--lld=iscsi")
        self._log = directory / "log"
        self.port = _free_port()

    def __enter__(self) -> Self:
        program = find_program("tgtd", package="tgt")
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *self._environment, program]
        with self._log.open("wb") as log:
            self._process = start(
                [*argv, "--foreground", "--iscsi", f"portal=127.0.0.1:{self.port}"], output=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(END_DEADLINE_S)

    def tell(self, *words: str) -> str:
        """Run tgtadm; what it printed."""
        return run([*self._admin, *words], deadline_s=STEP_DEADLINE_S)

    def first(self, *words: str) -> None:
        """Run tgtadm as soon as the daemon answers."""
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            try:
                self.tell(*words)
            except ProgramError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    ended = self._process.returncode is not None
                    raise self.failed("ended" if ended else "does not answer") from error
                time.sleep(0.1)
            else:
                return

    def failed(self, how: str) -> LabError:
        """An error that ends with what the daemon printed."""
        lines = self._log.read_text(errors="backslashreplace").strip().splitlines()[-LAST_LINES:]
        return LabError("\n".join((f"tgtd, the iSCSI target outside, {how}:", *lines)))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
