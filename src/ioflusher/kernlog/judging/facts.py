"""What a log as a whole tells besides its stacks' waits: which subsystems, who serves what, what is short."""

from dataclasses import dataclass, field

from ioflusher.kernlog.judging.findings import Case
from ioflusher.kernlog.records import DeviceServer, Event, EventKind, TaskReport
from ioflusher.kernlog.stacks.anatomy import Anatomy, Reclaim, Step, Wait
from ioflusher.kernlog.stacks.askers import Daemon, daemon_named
from ioflusher.kernlog.stacks.kernel_threads import kernel_thread_named
from ioflusher.kernlog.stacks.roles import Role
from ioflusher.kernlog.stacks.subsystems import families, family
from ioflusher.kernlog.stacks.things import Thing, Verb

# a log holds more tasks than anybody reads; the sets below stay this small
MAX_REMEMBERED = 1024


def _takes_requests_of(step: Step) -> str | None:
    """The driver or file system from which a daemon takes requests in this function, None for another."""
    waits_for_one = step.role is Role.IDLE and family(step.part) in _SERVED
    return family(step.part) if step.role is Role.USER_FS_DAEMON or waits_for_one else None


# file systems and drivers whose requests programs take in a function of their own
_SERVED = frozenset({"fuse", "ublk_drv", "nbd"})


_OR_A_CHILD = "or sacrifice child"
# the OOM killer's helper has no way to a killed task's memory
_UNREAPED = "unable to reap"
# what does not end by itself, as requests of a device do
_OF_OTHERS = frozenset({Wait.LOCK, Wait.FS, Wait.SUBSYSTEM})


def _waits_for_members(body: Anatomy) -> bool:
    """Whether a journal's thread waits for those inside its transaction."""
    speaking = next((step for step in body.steps if step.row and step.role not in _SLEEP), None)
    return speaking is not None and speaking.does(Verb.WAITS, Thing.TRANSACTION)


_SLEEP = frozenset({Role.SCHEDULE, Role.WAIT_BIT})


@dataclass(slots=True)
class Facts:
    """Gathered while a log is read; bounded in size.

    Attributes:
        families: every subsystem seen in a stack, and of every device in trouble or with requests that hang.
        in_shrinker: a task that waits in a shrinker, and so keeps those waiting that wait for every shrinker.
        kswapd_idle: kswapd waits for work, so that it finds enough memory free and puts no pages back.
        kswapd_waits: kswapd waits for a file system or somebody's lock, so that it frees nothing meanwhile.
        trouble: a device or server errs, or does not answer.
        servers: the processes that complete devices' requests, where a kernel's memory or a snapshot told.
        worst_margin: KiB of the zone that is furthest below its min watermark; positive above; None unknown.
        present: what the daemons of the log serve.
        killed: the processes that the OOM killer chose.
        victims: those of them that it chose because the machine's memory was short, not a memory cgroup's.
        candidate: a process of which the last line on the OOM killer said that it or a child is killed.
        stalled: the tasks, by number or name, of which the kernel said that their allocation does not end.
        stalling: the kernel said so of some task, perhaps not of which, or that it can take no memory from
            a task that was killed for it.
        ends_behind: a task that ends waits for somebody, so that its memory does not come back.
        commit_behind: journals that are not committed before those inside the transaction get on.
        throttled: a writer waits until fewer pages are dirty.
        work_waits: a work that a task waits for is not begun, as the kernel says: no worker is free.
        threads: what the kernel's own threads of the log bring about.
        locking: functions in which tasks wait for a lock that belongs to no subsystem.
        takers: (process, None), (None, name) or (process, name) of a program of which a stack takes requests,
            or of whose child of that name -> of what.
    """

    families: set[str] = field(default_factory=set)
    in_shrinker: Case | None = None
    kswapd_idle: bool = False
    kswapd_waits: bool = False
    trouble: bool = False
    servers: list[DeviceServer] = field(default_factory=list)
    worst_margin: int | None = None
    present: set[str] = field(default_factory=set)
    killed: set[int] = field(default_factory=set)
    victims: set[int] = field(default_factory=set)
    candidate: int | None = None
    stalled: set[int | str] = field(default_factory=set)
    stalling: bool = False
    ends_behind: bool = False
    commit_behind: set[str] = field(default_factory=set)
    throttled: bool = False
    work_waits: bool = False
    threads: set[Thing] = field(default_factory=set)
    locking: set[str] = field(default_factory=set)
    takers: dict[tuple[int | None, str | None], str] = field(default_factory=dict)

    def learn_case(self, case: Case) -> None:
        """Take in what one stack adds."""
        body = case.body
        self._remember_families((*families(body.inner), *families(body.outer)))
        self.kswapd_idle |= body.reclaim is Reclaim.KSWAPD and body.wait is Wait.IDLE
        if (thread := kernel_thread_named(case.report.comm)) and thread.gives:
            self.threads.add(thread.gives)
        self.kswapd_waits |= body.reclaim is Reclaim.KSWAPD and body.wait in _OF_OTHERS and not case.ran
        if daemon := daemon_named(case.report.comm):
            self.present.add(daemon.serves)
        ends = any(step.does(Verb.COMPLETES, Thing.VICTIM) for step in body.steps)
        self.ends_behind |= ends and body.wait in _OF_OTHERS and not case.ran
        if (step := body.locking) is not None and len(self.locking) < MAX_REMEMBERED:
            self.locking.add(step.frame.name)
        self.throttled |= body.wait is Wait.DIRTY_THROTTLE
        if thread and thread.gives is Thing.TRANSACTION and thread.family and _waits_for_members(body):
            self.commit_behind.add(thread.family)
        if taken := next((name for step in body.steps if (name := _takes_requests_of(step))), None):
            self._remember_taker(case.report, taken)
        if case.ran or body.reclaim is None or body.wait in (Wait.RUNNING, Wait.SHRINKERS):
            return
        if any(step.role is Role.SHRINKER for step in body.inner):
            self.in_shrinker = self.in_shrinker or case

    def learn_event(self, event: Event) -> None:
        """Take in what one line adds."""
        if event.kind is EventKind.ZONE and event.number is not None:
            # the DMA zone is kept almost empty on purpose
            if event.subject and not event.subject.endswith(" DMA"):
                known = event.number if self.worst_margin is None else self.worst_margin
                self.worst_margin = min(known, event.number)
        elif event.kind is EventKind.OOM_KILL and event.number is not None:
            self.stalling |= _UNREAPED in event.text
            self._take_back_candidate(event)
            if len(self.killed) < MAX_REMEMBERED and event.number not in self.killed:
                self.killed.add(event.number)
                if "cgroup" not in event.text:
                    self.victims.add(event.number)
        elif event.kind is EventKind.ALLOCATION_STALL:
            self.stalling = True
            if len(self.stalled) < MAX_REMEMBERED and (stalled := event.number or event.subject) is not None:
                self.stalled.add(stalled)
        elif event.kind is EventKind.WORKQUEUE_STALL:
            self.work_waits = True
        elif event.kind in (EventKind.DEVICE_TROUBLE, EventKind.STUCK_REQUEST) and event.subject:
            # who does not answer may be the daemon that waits itself
            self.trouble |= event.kind is EventKind.DEVICE_TROUBLE
            self._remember_families((event.subject.rstrip("0123456789"),))

    def _take_back_candidate(self, event: Event) -> None:
        """Until Linux 4.19 one line named a process, the next one the child that was killed in its place."""
        if self.candidate is not None:
            self.killed.discard(self.candidate)
            self.victims.discard(self.candidate)
        self.candidate = event.number if _OR_A_CHILD in event.text else None

    def _remember_families(self, names: tuple[str, ...]) -> None:
        if len(self.families) < MAX_REMEMBERED:
            self.families.update(names)

    def server_of(self, report: TaskReport) -> DeviceServer | None:
        """The server whose thread a task is, by number or else by name; None for none."""
        by_number = (server for server in self.servers if server.runs(report))
        by_name = (server for server in self.servers if report.comm in server.names)
        return next(by_number, None) or next(by_name, None)

    def _remember_taker(self, report: TaskReport, taken: str) -> None:
        # whoever attaches an nbd device need not serve it, and interpreters lend their name to many programs
        attaches = taken == "nbd" and report.parent is not None
        for key in ((report.pid, None), (report.parent if attaches else None, report.comm)):
            if key != (None, None) and len(self.takers) < MAX_REMEMBERED:
                self.takers.setdefault(key, taken)

    def takes_requests(self, report: TaskReport) -> str | None:
        """What the program of a task serves, as another of its stacks shows; None where none does."""
        keys = ((report.pid, None), (report.pid, report.comm), (None, report.comm))
        return next((self.takers[key] for key in keys if key in self.takers), None)

    def excused(self, daemon: Daemon) -> bool:
        """Whether a daemon of such a name serves nothing of this machine, since others in the log say so."""
        return daemon.unless in self.present

    def is_victim(self, report: TaskReport) -> bool:
        """Whether the OOM killer chose a task, to free the machine's memory."""
        return not self.victims.isdisjoint({report.pid, report.tid})

    def stalls(self, report: TaskReport) -> bool:
        """Whether the kernel said that a task's allocation does not end: if it runs, it gets nowhere."""
        return not self.stalled.isdisjoint({report.tid, report.comm})

    @property
    def exhausted(self) -> bool:
        """Whether the log shows a zone below its min watermark."""
        return self.worst_margin is not None and self.worst_margin < 0
