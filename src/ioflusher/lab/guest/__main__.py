"""The agent: the one program that a guest starts."""

import os
import sys

from ioflusher.lab.guest.port import EventPort
from ioflusher.lab.job import ExecJob, load_job


def main() -> None:
    """Read the order, carry it out, say so."""
    events = EventPort()
    events.say("hello", release=os.uname().release)
    with open("/run/lab/job.json", encoding="utf-8") as file:
        job = load_job(file.read())
    try:
        if isinstance(job, ExecJob):
            from ioflusher.lab.guest.execute import execute

            execute(job, events)
        else:
            from ioflusher.lab.guest.play import play

            play(job, events)
    except BaseException:
        import traceback  # only now: every import costs a guest under emulation

        events.say("failed", message=traceback.format_exc(limit=8))
        raise
    finally:
        sys.stdout.flush()


main()
