"""Inside the guest: disks are found by the name that they were asked for with."""

from pathlib import Path

from ioflusher.lab.guest.processes import SetupFailed


def find_disk(name: str, block: Path = Path("/sys/block")) -> str:
    """The virtio disk with this serial number, as in /dev/vdb; raises SetupFailed where there is none."""
    for entry in sorted(block.glob("vd*")):
        try:
            if (entry / "serial").read_text().strip() == name:
                return f"/dev/{entry.name}"
        except OSError:
            continue  # it has none
    raise SetupFailed(f"the guest has no disk named {name!r}")
