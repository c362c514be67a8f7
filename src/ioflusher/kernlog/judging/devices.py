"""Which device or file system a stack is about, as far as names in the log tell."""

from ioflusher.kernlog.judging.findings import Case
from ioflusher.kernlog.reading.patterns import LazyPattern
from ioflusher.kernlog.stacks.roles import Role

_NAMED = LazyPattern(
    r"\b(nbd\d+|ublkb\d+|loop\d+|zram\d+|rbd\d+|drbd\d+|dm-\d+|md\d+|nvme\d+n\d+(?:p\d+)?|mmcblk\d+(?:p\d+)?"
    r"|bcache\d+|sr\d+|(?:sd|vd|xvd|hd)[a-z]{1,3}\d*)\b"
)
# a flusher's worker carries major:minor (Documentation/admin-guide/devices.txt)
_FLUSHER = LazyPattern(r"flush-(\d+):(\d+)")
_MAJORS = {7: "loop", 43: "nbd", 147: "drbd", 9: "md"}
_KINDS = {
    "nbd": "an nbd device",
    "ublk_drv": "a ublk device",
    "loop": "a loop device",
    "zram": "a zram device",
    "fuse": "a FUSE mount",
    "nfs": "an NFS mount",
    "ceph": "a Ceph mount",
    "cifs": "an SMB mount",
}


def device_of(case: Case) -> str | None:
    """The device's name, else its kind in words, else None where the log names neither."""
    report = case.report
    if report.device:
        return report.device
    texts = [text for text in (report.workqueue, report.comm) if text]
    for text in texts:
        if found := _NAMED.search(text.replace("_", " ")):
            return found[1]
        if flusher := _FLUSHER.search(text):
            major, minor = int(flusher[1]), int(flusher[2])
            return f"{_MAJORS[major]}{minor}" if major in _MAJORS else f"block device {major}:{minor}"
    parts = [step.part for step in case.body.inner or case.body.steps if step.part in _KINDS]
    if parts and parts[0]:
        return _KINDS[parts[0]]
    systems = [
        step.part for step in case.body.inner if step.role in _FILE_SYSTEMS and step.part not in _NO_DEVICE
    ]
    return f"the device below {systems[-1]}" if systems else None


_NO_DEVICE = {None, "fs", "fsnotify", "quota", "overlay", "block", "mm"}
_FILE_SYSTEMS = {Role.FILE_SYSTEM, Role.FS_WAIT, Role.IO_WAIT, Role.RECLAIM_QUEUE}
