"""The guard's systemd unit (systemd.service(5), systemd.exec(5))."""

import shlex
from collections.abc import Sequence

from ioflusher.rescue.guard.settings import GuardPolicy, GuardSettings

# what it does needs: the state, locked memory, real time, ptrace of daemons, /proc and /sys of everybody
CAPABILITIES = (
    "CAP_SYS_RESOURCE",
    "CAP_IPC_LOCK",
    "CAP_SYS_NICE",
    "CAP_SYS_PTRACE",
    "CAP_SYS_ADMIN",
    "CAP_NET_ADMIN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_SYSLOG",
)
STATE_DIRECTORY = "ioflusher"


def unit_text(program: Sequence[str], settings: GuardSettings) -> str:
    """The unit that starts `program` as a guard with these settings."""
    words = [*program, "guard", *options(settings)]
    command = " ".join(shlex.quote(word).replace("%", "%%").replace("$", "$$") for word in words)
    return f"""\
[Unit]
Description=Ends freezes of devices that user space serves
Documentation=man:prctl(2)
DefaultDependencies=no
After=local-fs.target
Before=shutdown.target
Conflicts=shutdown.target

[Service]
Type=exec
ExecStart={command}
Restart=on-failure
RestartSec=5
StateDirectory={STATE_DIRECTORY}
# it must not wait for what is frozen
LimitMEMLOCK=infinity
MemorySwapMax=0
OOMScoreAdjust=-1000
CPUSchedulingPolicy=rr
CPUSchedulingPriority={settings.priority}
# and may do nothing else
CapabilityBoundingSet={" ".join(CAPABILITIES)}
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelModules=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
UMask=0027

[Install]
WantedBy=multi-user.target
"""


def options(settings: GuardSettings) -> list[str]:
    """The options of `ioflusher guard` that give these settings."""
    words = ["--policy", settings.policy.value, "--stalled", f"{settings.stalled_s:g}"]
    words += ["--priority", str(settings.priority)]
    for device in settings.allow_loss if settings.policy is GuardPolicy.MORE else ():
        words += ["--allow-loss", device]
    if settings.reserve:
        words += ["--reserve", str(settings.reserve)]
    if settings.history is not None:
        words += ["--history", settings.history]
    return words
