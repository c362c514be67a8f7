"""Record what real guests say, one half for each way that a half can end.

    python -m tests.lab.record [NAME...]

Each recording goes to recordings/NAME.json; test_recordings.py plays it back without a virtual machine.
The scenarios are built-in ones, some with a line replaced or with a daemon that does what is to be recorded.
"""

import contextlib
import sys
from pathlib import Path

from ioflusher.lab.errors import LabError
from ioflusher.lab.experiment import run_half
from ioflusher.lab.recording import Recording, write_recording
from ioflusher.lab.session import Lab
from ioflusher.scenario.file import builtin_scenarios, parse_scenario

RECORDINGS = Path(__file__).with_name("recordings")


def scenario(name: str, **replaced: str) -> str:
    """A built-in scenario with parts of its text replaced."""
    text = builtin_scenarios()[name]
    for old, new in replaced.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def served_by(command: str, **replaced: str) -> str:
    """The throttled scenario with this shell command as its daemon; $1 is the socket, $2 the file."""
    words = f"""command = ["sh", "-c", '''{command}''', "sh", "{{socket}}", "{{file}}"]"""
    return scenario("ext4-on-nbd-throttled", **{'store = "file"': f'store = "file"\n{words}'}, **replaced)


def meanwhile(action: str) -> str:
    """An nbdkit beside which `action` runs as soon as the workload writes; $$ is nbdkit, $PPID the agent."""
    wait = "while ! [ -e /mnt/file0 ]; do sleep 0.1; done; sleep 1"
    return f'({wait}; {action}) & exec nbdkit -f -U "$1" file "$2"'


BINDFS = 'command = ["bindfs", "-f", "--multithreaded", "{directory}", "{mount}"]'
STOPS_ITS_OBSERVER = """command = ["sh", "-c", '''
(while ! [ -e /mnt/file0 ]; do sleep 0.1; done; sleep 3; kill -STOP $PPID) &
exec bindfs -f --multithreaded "$1" "$2"
''', "sh", "{directory}", "{mount}"]"""
SWAP, FILES = "swap-on-nbd", "ext4-on-nbd-throttled"
# name -> (scenario, whether the daemon carries the state)
CASES: dict[str, tuple[str, bool]] = {
    "finished": (scenario(FILES), True),
    "finished-swap": (scenario(SWAP), True),
    "finished-wrong-chunks": (
        served_by(
            "(while ! [ -e /mnt/file2 ]; do sleep 0.1; done; while sleep 1; do "
            "dd if=/dev/urandom of=/store/image bs=1M seek=40 count=4 conv=notrunc; done) & "
            'exec nbdkit -f -U "$1" file "$2"'
        ),
        True,
    ),
    "frozen-throttled": (scenario(FILES), False),
    "frozen-in-reclaim": (scenario(SWAP), False),
    "frozen-in-inode-reclaim": (scenario("xfs-on-nbd-5.8"), False),
    "frozen-nfs": (scenario("nfs-on-ganesha-throttled"), False),
    "frozen-in-the-kernels-target": (scenario("ext4-on-lio-throttled"), True),
    "frozen-no-witness": (served_by(meanwhile("kill -STOP $$")), True),
    "out-of-memory": (
        scenario(
            SWAP,
            **{
                'size = "256M"': 'size = "16M"',
                'size = "188M"': 'size = "800M"',
                "[kernel.sysctl]": '[kernel.sysctl]\n"vm.overcommit_memory" = 1',
            },
        ),
        True,
    ),
    "panicked": (served_by(meanwhile("echo c >/proc/sysrq-trigger")), True),
    "lost-machine-ended": (served_by(meanwhile("echo b >/proc/sysrq-trigger")), True),
    "lost-daemon-killed": (served_by(meanwhile("kill -KILL $$")), True),
    "lost-at-the-deadline": (
        scenario(
            FILES, **{"deadline_s = 150": "deadline_s = 40", 'size = "96M"': 'size = "96M"\npause_ms = 2000'}
        ),
        True,
    ),
    "silent-frozen": (served_by(meanwhile("sleep 2; kill -STOP $PPID")), False),
    "silent-no-witness": (served_by(meanwhile("kill -STOP $$; kill -STOP $PPID")), True),
    # stopped, our thread in NBD_DO_IT gives the connection up: requests fail, and nothing is frozen
    "memory-silent-cut": (served_by(meanwhile("sleep 2; kill -STOP $PPID")), False),
    "memory-silent-frozen": (scenario("ext4-on-bindfs-throttled", **{BINDFS: STOPS_ITS_OBSERVER}), False),
    "memory-panicked": (served_by(meanwhile("echo c >/proc/sysrq-trigger")), True),
    "stage-setting": (scenario(SWAP, **{"vm.swappiness": "vm.no_such_setting"}), True),
    "stage-daemon-exits": (served_by('echo "no export in $2" >&2; exit 3'), True),
    "stage-daemon-never-serves": (served_by("exec sleep 1000"), True),
    "stage-daemon-missing": (
        served_by("").replace("[\"sh\", \"-c\", '''''', \"sh\",", '["/no/such/daemon",'),
        True,
    ),
}


def main(wanted: list[str]) -> None:
    """Record the cases, all without names."""
    RECORDINGS.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        labs: dict[str, Lab] = {}
        for name in wanted or CASES:
            text, io_flusher = CASES[name]
            played = parse_scenario(text, origin=name)
            kernel = played.machine.kernel
            if kernel not in labs:
                labs[kernel] = stack.enter_context(Lab(scenario=played))

            def keep(recording: Recording, name: str = name) -> None:
                write_recording(recording, RECORDINGS / f"{name}.json")

            try:
                half = run_half(labs[kernel], played, io_flusher=io_flusher, keep=keep)
                print(f"{name}: {half.outcome.value}, {half.detail}", flush=True)
            except LabError as error:
                print(f"{name}: {str(error).splitlines()[0]}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
