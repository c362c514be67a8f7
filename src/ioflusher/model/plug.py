"""Plugging: what a task submits it keeps back, until it has several or goes to sleep; block/blk-core.c.

A request in a plug has its tag, and its bio the element of the pool that it came from. So whoever waits for
those may wait for what he holds himself, and a task that goes to sleep hands over first what it has plugged
(sched_submit_work(), kernel/sched/core.c). With that a plug decides nothing of what the model says; it is
left out of a system unless `ioflusher.model.build.build()` is asked for it.

Not every sleep hands over: a task that is about to issue its plug's requests one after the other
(blk_mq_plug_issue_direct()) and waits in the driver for the first of them has the others in its hands.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ioflusher.model.code import Code, Ways
from ioflusher.model.transitions import Expression, Number, Variable, number, total

if TYPE_CHECKING:
    from ioflusher.model.block import BlockDriver
    from ioflusher.model.linux import Linux

# include/linux/blkdev.h; twice as many where they are for several devices
BLK_MAX_REQUEST_COUNT = 32


@dataclass(slots=True)
class Plug:
    """struct blk_plug of a task.

    Attributes:
        held: the requests that it keeps back, by device and kind.
    """

    held: "dict[tuple[str, str], Variable]" = field(default_factory=dict)

    @property
    def rq_count(self) -> Expression:
        """How many there are."""
        return total(self.held.values()) if self.held else number(0)


@contextmanager
def blk_plug(code: Code, linux: "Linux", *submitted: "tuple[BlockDriver, str]") -> Iterator[None]:
    """From blk_start_plug() to blk_finish_plug(), once in a program.

    Args:
        code: the program of the task.
        linux: the kernel.
        submitted: the devices and kinds of request that it may submit meanwhile; others go at once.
    """
    if not linux.plugs:
        yield
        return
    plug = code.plug = Plug()
    pid = linux.next_pid()
    for device, kind in submitted:
        name = f"plug_{pid}_{device.name}_{kind}s"
        what = f"requests of {device.name} that a task keeps back ({kind})"
        plug.held[device.name, kind] = linux.variable(name, 0, device.queue_depth, what=what)
    yield
    code.plug = None
    with code.call("blk_finish_plug"):
        blk_mq_flush_plug_list(code, linux, plug)


def blk_add_rq_to_plug(code: Code, linux: "Linux", device: "BlockDriver", kind: str) -> None:
    """A request that has its tag is kept back; where there are many already those go first."""
    plug = code.plug
    assert plug is not None
    held = plug.held[device.name, kind]
    with code.call("blk_add_rq_to_plug"):
        with code.choice() as ways:
            with ways.way(when=plug.rq_count >= BLK_MAX_REQUEST_COUNT):
                blk_mq_flush_plug_list(code, linux, plug)
            with ways.otherwise():
                pass
        code.step(f"into its plug, for {device.name}", {held: held + 1})


def sched_submit_work(ways: Ways, code: Code, linux: "Linux") -> None:
    """A further way of a task that would go to sleep: it hands over what it has plugged, then looks again.

    It issues nothing itself: kblockd does (`from_schedule` of blk_mq_flush_plug_list()).
    """
    plug = code.plug
    if plug is None or not linux.flushes_at_sleep:
        return
    changes: dict[Variable, Number] = {}
    for (device, kind), held in plug.held.items():
        inserted = linux.devices[device].inserted(kind)
        changes |= {inserted: inserted + held, held: 0}
    with (
        code.call("io_schedule", "blk_flush_plug", "blk_mq_flush_plug_list"),
        ways.otherwise("hands over what it has plugged", changes, when=plug.rq_count > 0),
    ):
        pass


def blk_mq_flush_plug_list(code: Code, linux: "Linux", plug: Plug) -> None:
    """Each request of a plug is issued by the task itself: blk_mq_plug_issue_direct(), block/blk-mq.c."""
    with code.call("blk_mq_flush_plug_list"), code.loop(), code.choice() as ways:
        for (device, kind), held in plug.held.items():
            with ways.otherwise("", {held: held - 1}, when=held > 0):
                linux.devices[device].queue_rq(code, kind)
        with ways.otherwise():
            code.leave()


def add_kblockd(linux: "Linux") -> None:
    """The workers that issue what tasks that went to sleep had plugged: blk_mq_run_work_fn()."""
    for device in linux.devices.values():
        if device.insertions:
            what = f"requests of {device.name} to be issued"
            device.add_dispatcher(device.insertions, what, f"kworker/0:1H-{device.name}")
