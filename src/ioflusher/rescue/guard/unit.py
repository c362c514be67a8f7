"""The guard's systemd unit (systemd.service(5), systemd.exec(5))."""

import os
import shlex
from collections.abc import Sequence

from ioflusher.kernel.nbd import NBD_MAJOR
from ioflusher.kernel.ublk import CONTROL_DEVICE
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
)
STATE_DIRECTORY = "ioflusher"
# where what is seen is kept: the kernel's log, and pstore's of user space; who tells of multipath's paths
DEVICES = ("/dev/kmsg w", "/dev/pmsg0 w", "/dev/mapper/control rw")
# what the actions that lose something speak to; by its number, since nbd's module may come later
LOSSY = (f"block-{NBD_MAJOR} rw", f"{CONTROL_DEVICE} rw")


def unit_text(program: Sequence[str], settings: GuardSettings) -> str:
    """The unit that starts `program` as a guard with these settings."""
    words = [*program, "guard", *options(settings)]
    more = settings.policy is GuardPolicy.MORE
    devices = [*DEVICES, *(LOSSY if more else ())]
    # a take-over kills one server, and reaches another one of this machine
    capabilities = [*CAPABILITIES, *(("CAP_KILL",) if more else ())]
    network = "IPAddressAllow=localhost\n" if more else ""
    families = "AF_UNIX AF_NETLINK" + (" AF_INET AF_INET6" if more else "")
    kept = f"ReadWritePaths={quoted('-' + os.path.dirname(settings.history))}\n" if settings.history else ""
    command = " ".join(quoted(word).replace("$", "$$") for word in words)
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
CapabilityBoundingSet={" ".join(capabilities)}
NoNewPrivileges=yes
ProtectSystem=strict
{kept}ProtectHome=yes
ProtectHostname=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
DevicePolicy=closed
{lines("DeviceAllow", devices)}
IPAddressDeny=any
{network}RestrictAddressFamilies={families}
RestrictNamespaces=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service @debug
SystemCallErrorNumber=EPERM
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def quoted(word: str) -> str:
    """As one word of a unit file."""
    return shlex.quote(word).replace("%", "%%")


def lines(name: str, values: Sequence[str]) -> str:
    """One setting several times."""
    return "\n".join(f"{name}={value}" for value in values)


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
