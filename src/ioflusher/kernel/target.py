"""The kernel's SCSI target (LIO) and its user-space handlers: names by which both ends are known.

Source: drivers/target/target_core_user.c (tcmu_configure_device, tcmu_update_uio_info),
drivers/target/target_core_spc.c (spc_emulate_evpd_83, spc_gen_naa_6h_vendor_specific) in 6.1 and 6.12.
"""

import re

TCMU_PREFIX = "tcm-user/"
_SERIAL = re.compile(r"Unit Serial Number:(.*)")
NAA_DIGITS = 25  # 36 bits of VENDOR SPECIFIC IDENTIFIER and 64 bits of its extension
NO_SERIAL = "0" * NAA_DIGITS  # what `wwid_suffix` says of a unit without one


def parse_uio_name(name: str) -> tuple[str, str] | None:
    """HBA number and device name in a uio device's "tcm-user/HBA/NAME/CONFIG"; None for other devices."""
    if not name.startswith(TCMU_PREFIX):
        return None
    hba, _, rest = name.removeprefix(TCMU_PREFIX).partition("/")
    device = rest.partition("/")[0]
    return (hba, device) if hba.isdigit() and device else None


def wwid_suffix(vpd_unit_serial: str) -> str | None:
    """The end of the NAA name that initiators see, from the text of wwn/vpd_unit_serial; None of other text.

    LIO names a disk naa.6, its company's six digits (001405 unless set), and the first 25 hexadecimal digits
    of the unit serial, filled up with zeros: all zeros without a serial (drivers/target/target_core_spc.c,
    spc_parse_naa_6h_vendor_specific).
    """
    match = _SERIAL.search(vpd_unit_serial)
    if match is None:
        return None
    digits = "".join(c for c in match[1].lower() if c in "0123456789abcdef")
    return digits[:NAA_DIGITS].ljust(NAA_DIGITS, "0")
