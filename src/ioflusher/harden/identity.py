"""Users and groups: a daemon under another user needs no capability once it carries the state."""

import grp
import os
import pwd
from dataclasses import dataclass

from ioflusher.harden.errors import HardenError, denied


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a process shall be.

    Attributes:
        uid, gid: its user and group.
        groups: its supplementary groups.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]


def find_identity(user: str | None, group: str | None) -> Identity:
    """The identity for a user and a group, each a name or a number; None keeps what the process has.

    A user's groups are those of the group database; a user without an entry, by number, has none and needs
    `group`.

    Raises:
        HardenError: for names that do not exist.
    """
    gid = _group(group) if group is not None else None
    if user is None:
        return Identity(os.getuid(), os.getgid() if gid is None else gid, tuple(os.getgroups()))
    entry = _user(user)
    if entry is not None:
        gid = entry.pw_gid if gid is None else gid
        return Identity(entry.pw_uid, gid, tuple(os.getgrouplist(entry.pw_name, gid)))
    if gid is None:
        raise HardenError(
            f"user {user} has no entry, so its group is not known", hint="name one with --group"
        )
    return Identity(int(user), gid, ())


def become(identity: Identity) -> None:
    """Give up the present user for good: supplementary groups, group, then user, real, effective and saved.

    Raises:
        HardenError: without CAP_SETUID or CAP_SETGID where they would change.
    """
    try:
        if set(os.getgroups()) != set(identity.groups):
            os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    except OSError as error:
        raise denied(
            f"become user {identity.uid}, group {identity.gid}",
            "CAP_SETUID and CAP_SETGID",
            error,
            "start as root, or let systemd's User= and Group= do it",
        ) from error


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError as error:
        if name.isdecimal():
            return None
        raise HardenError(f"no user {name!r}", hint="see `getent passwd`") from error


def _group(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise HardenError(f"no group {name!r}", hint="see `getent group`") from error
