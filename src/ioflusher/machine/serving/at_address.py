"""Which process serves at a TCP address of this machine: iSCSI, NVMe over TCP, NFS, CIFS and 9p alike."""

from collections.abc import Iterator
from dataclasses import dataclass

from ioflusher.machine.peers import join_address
from ioflusher.machine.serving.index import SnapshotIndex, distinct


@dataclass(frozen=True, slots=True)
class AtAddress:
    """One answer.

    Attributes:
        pid: the process; None for the kernel, and for nobody.
        evidence: what says so, without an end: what leads to the address is said by who asks.
        certain: False where it is one of several, or not everything could be read.
        kernel: whether the kernel itself serves.
    """

    pid: int | None
    evidence: str
    certain: bool
    kernel: bool = False


def servers_at(
    index: SnapshotIndex, host: str, port: str, what: str, *, client_is_kernel: bool = True
) -> Iterator[AtAddress]:
    """Who holds the server's end of a connection to the address, else who listens there.

    Nobody where the address is not this machine's. `what` leads there, as the evidence names it.
    `client_is_kernel`: only connections whose other end the kernel alone holds count.
    """
    address = join_address(host, port)
    ends = [own for own, other in index.connections_at(address) if not (client_is_kernel and other.pids)]
    connected = distinct(pid for end in ends for pid in end.pids)
    for pid in connected:
        evidence = f"{index.name(pid)} holds the server's end of the connection of {what} to {address}"
        yield AtAddress(pid, evidence, certain=len(connected) == 1)
    if connected:
        return
    if ends and index.certain:
        evidence = f"the kernel alone holds the server's end of the connection of {what} to {address}"
        yield AtAddress(None, evidence, certain=True, kernel=True)
        return
    if not ends and not index.is_local(host):
        return
    listeners = index.listeners_at(host, port)
    listening = distinct(pid for listener in listeners for pid in listener.end.pids)
    for pid in listening:
        evidence = f"{index.name(pid)} listens at {address}, where {what} leads"
        yield AtAddress(pid, evidence, certain=len(listening) == 1)
    if listening:
        return
    if listeners or ends:
        evidence = f"the kernel is seen to serve at {address}, where {what} leads"
        yield AtAddress(None, evidence, certain=index.certain, kernel=True)
    else:
        evidence = f"{what} leads to {address} on this machine, where nobody is seen to listen"
        yield AtAddress(None, evidence, certain=index.certain)
