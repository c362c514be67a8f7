"""Runs inside a guest, as root with all capabilities: what the kernel really does with the state.

Prints one JSON line a check; the test outside (test_guest.py) holds them against what it expects.
The calls go past the library where the kernel's own rules are asked for.
"""

import asyncio
import ctypes
import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from subprocess import PIPE

import ioflusher

PR_SET, PR_GET = 57, 58
LIBC = ctypes.CDLL(None, use_errno=True)
PROGRAM = str(Path(sys.executable).with_name("ioflusher"))
BITS = "open('/proc/thread-self/stat').read().rpartition(')')[2].split()[6]"
SAY_BITS = f"print(hex(int({BITS}) & 0x180000))"


def say(check: str, found: object) -> None:
    """One line for the test outside."""
    print(json.dumps([check, found]), flush=True)


def prctl(*arguments: int) -> int | str:
    """What the kernel answers, an error by its name."""
    result = LIBC.prctl(*(ctypes.c_ulong(argument) for argument in arguments))
    return errno.errorcode[ctypes.get_errno()] if result == -1 else int(result)


def bits() -> str:
    """The calling thread's two bits."""
    stat = Path("/proc/thread-self/stat").read_bytes()
    return hex(int(stat.rpartition(b")")[2].split()[6]) & 0x180000)


def in_thread(action: Callable[[], object]) -> object:
    """What the action returns in a new thread."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(action()))
    thread.start()
    thread.join()
    return results[0]


def python(code: str, *before: str) -> str:
    """What Python code prints, executed as a program of its own behind `before`."""
    command = [*before, sys.executable, "-c", code]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60)
    return done.stdout.strip() or f"status {done.returncode}"


def rules() -> None:
    """kernel/sys.c, PR_SET_IO_FLUSHER and PR_GET_IO_FLUSHER."""
    say("at first", [prctl(PR_GET, 0, 0, 0, 0), bits()])
    say("set to 2 and -1", [prctl(PR_SET, state, 0, 0, 0) for state in (2, (1 << 64) - 1)])
    say("set, unused arguments", [prctl(PR_SET, 1, *rest) for rest in ((1, 0, 0), (0, 1, 0), (0, 0, 1))])
    say("get, unused arguments", [prctl(PR_GET, *(int(n == place) for n in range(4))) for place in range(4)])
    say("untouched by errors", bits())
    ioflusher.set_io_flusher(True)
    say("set", [prctl(PR_GET, 0, 0, 0, 0), bits(), ioflusher.get_io_flusher()])
    ioflusher.set_io_flusher(False)
    say("cleared", [prctl(PR_GET, 0, 0, 0, 0), bits(), ioflusher.get_io_flusher()])
    without = ("setpriv", "--bounding-set", "-sys_resource")
    raw = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); "
    raw += "print(libc.prctl({}, 0, 0, 0), ctypes.get_errno())"
    say("without capability, set", python(raw.format(f"{PR_SET}, 1"), *without))
    say("without capability, get", python(raw.format(f"{PR_GET}, 0"), *without))
    say("without capability, wrong arguments", python(raw.format(f"{PR_SET}, 7"), *without))
    root_there = ("unshare", "--user", "--map-root-user")
    say("root of a user namespace, set", python(raw.format(f"{PR_SET}, 1"), *root_there))
    why = "import ioflusher\ntry: ioflusher.set_io_flusher(True)\n"
    why += (
        "except ioflusher.NotPermittedError as e: print(e.errno, list(e.missing), 'user namespace' in e.hint)"
    )
    say("root of a user namespace, the library", python(why, *root_there))
    library = "import ioflusher; print(ioflusher.get_io_flusher())"
    say("without capability, the library reads", python(library, *without))


def cleared_bits() -> str:
    """The bits of the calling thread after it cleared them."""
    ioflusher.set_io_flusher(False)
    return bits()


@ioflusher.without_io_flusher()
async def async_child() -> str:
    """What a child prints that an async function starts out of the state."""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", SAY_BITS, stdout=PIPE)
    return (await child.communicate())[0].decode().strip()


def inheritance() -> None:
    """include/linux/sched.h: the flags are copied to a new task and kept across execve."""
    go = threading.Event()
    old: list[str] = []

    def wait_and_look() -> None:
        go.wait()
        old.append(bits())

    born_before = threading.Thread(target=wait_and_look)
    born_before.start()
    ioflusher.set_io_flusher(True)
    go.set()
    born_before.join()
    say("a thread born before", old[0])
    say("a thread born after", in_thread(bits))
    with tempfile.TemporaryFile() as file:
        child = os.fork()
        if child == 0:
            os.write(file.fileno(), bits().encode())
            os._exit(0)
        os.waitpid(child, 0)
        say("a forked child", os.pread(file.fileno(), 100, 0).decode())
    say("an executed program", python(SAY_BITS))
    unprivileged = (
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--bounding-set",
        "-all",
    )
    say("without privileges", python(SAY_BITS, *unprivileged))
    say("cleared for a thread", in_thread(cleared_bits))
    with ioflusher.popen([sys.executable, "-c", SAY_BITS], state=False, stdout=subprocess.PIPE) as process:
        say("a child without it", process.communicate(timeout=60)[0].decode().strip())
    say("an async child without it", asyncio.run(async_child()))
    ioflusher.set_io_flusher(False)


def scopes() -> None:
    """Nested scopes restore what was there, each thread its own."""
    seen: list[object] = [bits()]
    with ioflusher.io_flusher():
        seen.append(bits())
        with ioflusher.without_io_flusher():
            seen += [bits(), in_thread(bits)]
            with ioflusher.io_flusher():
                seen.append(bits())
        seen.append(bits())
    say("scopes", [*seen, bits()])
    with ioflusher.flusher_executor(3) as executor:
        say("a pool's workers", sorted(set(executor.map(lambda _: bits(), range(30)))))
    for method in ("fork", "forkserver", "spawn"):
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(1, context, initializer=ioflusher.flush_worker) as processes:
            say(f"a process pool's worker, {method}", processes.submit(bits).result(timeout=120))


def followed(pid: int) -> list[object]:
    """How many threads a process has, and whether all of them carry the state."""
    found = ioflusher.coverage(pid)
    return [len(found.threads), found.complete]


def runtime(how: str) -> None:
    """Node, which starts threads before its program's first line, and more of them later."""
    before = [PROGRAM, "run", "--"] if how == "run" else []
    script = str(Path(__file__).with_name("programs") / "threads.js")
    node = subprocess.Popen([*before, "node", script], stdin=PIPE, stdout=PIPE, text=True)
    assert node.stdin is not None
    assert node.stdout is not None
    seen: list[object] = [node.stdout.readline().strip(), followed(node.pid)]
    if how == "set":
        seen.append(subprocess.run([PROGRAM, "set", str(node.pid)], stdout=sys.stderr, timeout=60).returncode)
        seen.append(followed(node.pid))
    node.stdin.write("more\n")
    node.stdin.flush()
    seen += [node.stdout.readline().strip(), followed(node.pid)]
    seen.append(node.communicate(timeout=60)[0].strip().partition(" rounds, ")[2])
    say(f"node under {how}", [*seen, node.returncode])


def device() -> None:
    """A thread that holds a block device inside ioctl(NBD_DO_IT) is told of and left alone."""
    uri = "nbd+unix:///?socket=/tmp/device.sock"
    with (
        subprocess.Popen(
            [PROGRAM, "nbd", "serve", "--memory", "4M", "--unix", "/tmp/device.sock"], stdout=PIPE
        ) as server,
        subprocess.Popen([PROGRAM, "run", "--", "sleep", "600"]) as covered,
    ):
        assert server.stdout is not None
        server.stdout.readline()
        client = subprocess.Popen([PROGRAM, "nbd", "attach", "/dev/nbd0", uri], stdout=PIPE)
        assert client.stdout is not None
        client.stdout.readline()
        command = [PROGRAM, "set", "--json", "--timeout", "1", str(client.pid), str(covered.pid)]
        done = subprocess.run(command, stdout=PIPE, timeout=60)
        of_client, of_covered = json.loads(done.stdout)["processes"]
        outcomes = sorted({thread["outcome"] for thread in of_client["threads"]})
        say("set on a device's client", [done.returncode, outcomes, of_covered["complete"]])
        unsafe = [thread for thread in of_client["threads"] if thread["outcome"] == "unsafe"]
        say("why not", [[thread["reason"], thread["hint"]] for thread in unsafe])
        say("the device reads", len(Path("/dev/nbd0").read_bytes()))
        subprocess.run([PROGRAM, "nbd", "detach", "/dev/nbd0"], check=True, timeout=60)
        client.communicate(timeout=60)
        server.terminate()
        covered.terminate()


def qemu_nbd(how: str) -> None:
    """QEMU's client and server in one: what `set` reaches of it, and that `run` covers all of it."""
    before = [PROGRAM, "run", "--"] if how == "run" else []
    image = Path(tempfile.mkdtemp()) / "image"
    image.write_bytes(bytes(4 << 20))
    command = [*before, "qemu-nbd", "--connect", "/dev/nbd0", "--format", "raw", str(image)]
    subprocess.run(command, check=True, timeout=60)
    holder, sectors = Path("/sys/block/nbd0/pid"), Path("/sys/block/nbd0/size")
    while not holder.exists() or sectors.read_text() == "0\n":  # the size comes after the holder
        time.sleep(0.05)
    thread = int(holder.read_text())
    process = int(Path(f"/proc/{thread}/status").read_text().partition("Tgid:")[2].split()[0])
    found: list[object] = []
    if how == "set":
        done = subprocess.run([PROGRAM, "set", "--json", str(process)], stdout=PIPE, timeout=60)
        (result,) = json.loads(done.stdout)["processes"]
        left = [t for t in result["threads"] if t["outcome"] not in ("done", "already", "gone")]
        found = [done.returncode, [[t["tid"] == thread, t["outcome"], t["reason"]] for t in left]]
    say(
        f"qemu-nbd, {how}",
        [*found, ioflusher.coverage(process).complete, len(os.listdir(f"/proc/{process}/task"))],
    )
    say(f"qemu-nbd, {how}, the device reads", len(Path("/dev/nbd0").read_bytes()))
    subprocess.run(["qemu-nbd", "--disconnect", "/dev/nbd0"], stdout=sys.stderr, check=True, timeout=60)
    while holder.exists():
        time.sleep(0.05)


def launcher() -> None:
    """`ioflusher run`: the state, another user, the command's own status."""
    report = (
        f"import os; {SAY_BITS}; print(os.getuid(), os.getgid(), os.getgroups(), "
        "open('/proc/self/status').read().partition('CapEff:')[2].split()[0])"
    )
    say("run as nobody", python(report, PROGRAM, "run", "--user", "nobody", "--").split("\n"))
    hardened = ("--oom-score-adj", "-900", "--policy", "rr", "--priority", "7", "--memlock", "unlimited")
    report = "import os, resource; print(open('/proc/self/oom_score_adj').read().strip(), "
    report += "os.sched_getscheduler(0), os.sched_getparam(0).sched_priority, "
    report += "resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])"
    say("run hardened", python(report, PROGRAM, "run", *hardened, "--"))
    for name, code in (("status", "exit 7"), ("signal", "kill -USR1 $$")):
        done = subprocess.run([PROGRAM, "run", "--", "sh", "-c", code], timeout=60)
        say(f"run, {name}", done.returncode)


if __name__ == "__main__":
    rules()
    inheritance()
    scopes()
    launcher()
    device()
    if shutil.which("qemu-nbd"):
        qemu_nbd("set")
        qemu_nbd("run")
    if shutil.which("node"):
        runtime("run")
        runtime("set")
