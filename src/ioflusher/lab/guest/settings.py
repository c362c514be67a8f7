"""Inside the guest: the scenario's kernel settings."""

from pathlib import Path

from ioflusher.scenario.records import KernelTable

# what a kernel that lacks the whole feature, and so its file, behaves like: file -> contents that say so
ABSENT_MEANS = {
    # the multi-generational LRU: since 6.1 (354ed5974429 "mm: multi-gen LRU: kill switch"), where
    # CONFIG_LRU_GEN has it; values as lru_gen_store() of mm/vmscan.c reads them
    "/sys/kernel/mm/lru_gen/enabled": ("0", "0x0000", "n", "N"),
}


def apply_settings(kernel: KernelTable) -> None:
    """Apply the settings; one of a feature that the kernel lacks is as wanted where it is to be off.

    Raises:
        OSError: names the file that is not there, or that does not take the value.
    """
    for name, value in kernel.sysctl.items():
        Path("/proc/sys", *name.split(".")).write_text(value)
    for file, value in kernel.write.items():
        if value.strip() in ABSENT_MEANS.get(file, ()) and not Path(file).exists():
            continue
        Path(file).write_text(value)
