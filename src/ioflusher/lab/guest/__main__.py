"""The agent: the one program that a guest starts."""

import os
import sys

from ioflusher.lab.guest.port import ReportPort
from ioflusher.lab.messages import (
    ORDER_FILE,
    AgentFailed,
    Hello,
    OpenShell,
    PlayHalf,
    ProfileDaemon,
    RunCommand,
    decode_order,
)


def main() -> None:
    """Read the order, carry it out, say so."""
    port = ReportPort()
    port.say(Hello(release=os.uname().release))
    with open(f"/run/lab/{ORDER_FILE}", "rb") as file:
        order = decode_order(file.read())
    try:
        # each is imported when it is ordered: every import costs a guest under emulation
        match order:
            case RunCommand():
                from ioflusher.lab.guest.execute import execute

                execute(order, port)
            case PlayHalf():
                from ioflusher.lab.guest.stage import play

                play(order, port)
            case OpenShell():
                from ioflusher.lab.guest.shell import open_shell

                open_shell(order, port)
            case ProfileDaemon():
                from ioflusher.lab.guest.profile import profile

                profile(order, port)
    except BaseException:
        import traceback

        port.say(AgentFailed(traceback=traceback.format_exc(limit=8)))
        raise
    finally:
        sys.stdout.flush()


main()
