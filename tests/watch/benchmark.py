"""What watching costs, on this machine.

    python tests/watch/benchmark.py refresh [--processes 2000] [--seconds 130] [--screen]
    python tests/watch/benchmark.py scrape [--processes 2000] [--scrapes 200]

`refresh`: processor time of `ioflusher watch` at one refresh a second, its start left out, a search for
daemons (every two minutes) among it. `scrape`: of `ioflusher export` for one scrape, without and with the
looks of the 15 s before, beside `ps -eLo pid,tid,flag,comm`. Both start that many sleeping processes first.
"""

import argparse
import contextlib
import os
import pty
import re
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator

TICKS = os.sysconf("SC_CLK_TCK")
PS = ["ps", "-eLo", "pid,tid,flag,comm"]
PROGRAM = [sys.executable, "-m", "ioflusher"]
STARTED_S = 10.0
LOOKS_S = 30.0  # of looks alone


@contextlib.contextmanager
def sleepers(number: int) -> Iterator[None]:
    """So many processes that do nothing."""
    pids = [os.posix_spawn("/bin/sleep", ["sleep", "3600"], {}) for _ in range(number)]
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)


def spent(pid: int) -> float:
    """Seconds of a processor that a process has used."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def busy() -> str:
    """How busy the machine is."""
    return f"load {os.getloadavg()[0]:.1f}"


def refresh(processes: int, seconds: float, screen: bool) -> None:
    """One refresh a second."""
    with sleepers(processes):
        options = ["watch", "--interval", "1", "--quiet", *([] if screen else ["--json"])]
        if screen:
            pid, terminal = pty.fork()
            if not pid:
                os.environ.update(TERM="xterm-256color", COLUMNS="160", LINES="45")
                os.execv(sys.executable, [*PROGRAM, *options])
            threading.Thread(target=drain, args=(terminal,), daemon=True).start()
        else:
            pid = subprocess.Popen([*PROGRAM, *options], stdout=subprocess.DEVNULL).pid
        time.sleep(STARTED_S)
        before, began = spent(pid), time.monotonic()
        time.sleep(seconds)
        used, passed = spent(pid) - before, time.monotonic() - began
        os.kill(pid, signal.SIGINT)
        os.waitpid(pid, 0)
    form = "screen" if screen else "--json"
    print(
        f"{form}, {processes} processes: {100 * used / passed:.2f} % of a core over {passed:.0f} s, {busy()}"
    )


def drain(terminal: int) -> None:
    """Read what a terminal shows."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 1 << 16):
            pass


def scrape(processes: int, scrapes: int) -> None:
    """One scrape beside ps."""
    with (
        sleepers(processes),
        subprocess.Popen([*PROGRAM, "export", "--listen", ":0"], stderr=subprocess.PIPE) as exporter,
    ):
        assert exporter.stderr is not None
        said = ""
        while "serving" not in said:
            said = exporter.stderr.readline().decode()
        url = re.findall(r"http://\S+", said)[0]
        time.sleep(STARTED_S)
        before, began = spent(exporter.pid), time.monotonic()
        time.sleep(LOOKS_S)
        looks = (spent(exporter.pid) - before) / (time.monotonic() - began)
        before, began = spent(exporter.pid), time.monotonic()
        for _ in range(scrapes):
            with urllib.request.urlopen(url, timeout=60) as answer:
                answer.read()
            time.sleep(0.02)
        passed = time.monotonic() - began
        each = (spent(exporter.pid) - before - looks * passed) / scrapes
        exporter.send_signal(signal.SIGINT)
        exporter.wait()
        of_ps = []
        for _ in range(7):
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(PS, stdout=subprocess.DEVNULL, check=True)
            now = resource.getrusage(resource.RUSAGE_CHILDREN)
            of_ps.append(now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime)
    ps = statistics.median(of_ps)
    whole = each + 15 * looks
    print(
        f"{processes} processes: a scrape {1e3 * each:.1f} ms, {each / ps:.3f} times ps ({1e3 * ps:.0f} ms)"
    )
    print(f"with 15 looks {1e3 * whole:.1f} ms, {whole / ps:.2f} times; looks {100 * looks:.2f} % of a core")
    print(busy())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("refresh", "scrape"))
    parser.add_argument("--processes", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=130.0)
    parser.add_argument("--scrapes", type=int, default=200)
    parser.add_argument("--screen", action="store_true")
    options = parser.parse_args()
    if options.what == "refresh":
        refresh(options.processes, options.seconds, options.screen)
    else:
        scrape(options.processes, options.scrapes)


if __name__ == "__main__":
    main()
