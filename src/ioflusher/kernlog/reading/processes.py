"""Lists of processes, as ps prints them: names of tasks whose stacks stand elsewhere with a number alone."""

from dataclasses import dataclass

from ioflusher.kernlog.reading.patterns import LazyPattern
from ioflusher.kernlog.records import COMM_WIDTH, TASK_STATES

MAX_PROCESSES = 4096


@dataclass(frozen=True, slots=True)
class Process:
    """A row of such a list.

    Attributes:
        number: of the process, or of the thread where the list has threads.
        name: as the kernel would print it.
        state: its first letter, None where the list has none.
    """

    number: int
    name: str
    state: str | None


# ps aux without its head, as grep leaves it
_AUX = LazyPattern(
    r"(?:^|\s)\S+\s+(?P<number>\d+)\s+\d+\.\d\s+\d+\.\d\s+\d+\s+\d+\s+\S+\s+(?P<state>[RSDTtZIX])[<NLsl+]*\s+\S+"
    r"\s+\d+:\d\d\s+(?P<command>\S.*)$"
)
_HEAD = LazyPattern(r"(?:^|\s)(?:PID|SPID|LWP|TID)\s(?:.*\s)?(?:COMMAND|CMD|COMM)\s*$")
_NUMBERS = ("TID", "LWP", "SPID", "PID")
_STATES = ("S", "STAT", "STATE")
_TERMINALS = (" ? ", " pts/", " tty")


class ProcessList:
    """What the lists of a log said so far; bounded.

    Attributes:
        columns: of the list that is being read, 0 while the next line can be a row of none.
    """

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._number: int | None = None  # columns of the list that is being read
        self._state: int | None = None
        self.columns = 0

    def take(self, text: str) -> Process | None:
        """The row that a line is, which is remembered; None for any other line."""
        if "PID" in text and _HEAD.search(text):
            self._take_head(text.split())
            return None
        row = self._row(text)
        if row is None:
            self.columns = 0
        elif len(self._names) < MAX_PROCESSES:
            self._names[row.number] = row.name
        return row

    def name_of(self, number: int | None) -> str | None:
        """The name of a task, None where no list has it."""
        return None if number is None else self._names.get(number)

    def _take_head(self, words: list[str]) -> None:
        self.columns = len(words)
        self._number = max(words.index(word) for word in _NUMBERS if word in words)
        self._state = next((words.index(word) for word in _STATES if word in words), None)

    def _row(self, text: str) -> Process | None:
        if any(terminal in text for terminal in _TERMINALS) and (found := _AUX.search(text)):
            return Process(int(found["number"]), _kernels_name(found["command"]), found["state"])
        if not self.columns or self._number is None:
            return None
        words = text.split(None, self.columns - 1)
        if len(words) < self.columns or not words[self._number].isdigit():
            return None
        state = words[self._state][0] if self._state is not None else None
        if state is not None and state not in TASK_STATES:
            return None
        return Process(int(words[self._number]), _kernels_name(words[-1]), state)


def _kernels_name(command: str) -> str:
    """The task's name of a command line: "[kworker/0:1+events]", "/usr/sbin/nbd-server -C /etc/nbd"."""
    program, _, rest = command.strip().partition(" ")
    if program.startswith("["):
        return f"{program} {rest}".strip("[] ").partition("+")[0][:COMM_WIDTH]
    # a daemon may write its own line: "nbd-server: child"
    return program.rstrip(":").rpartition("/")[2][:COMM_WIDTH] or program[:COMM_WIDTH]
