"""Who may do what: `struct cred` and its rules, as far as CAP_SYS_RESOURCE is concerned.

A cred is never changed, as in the kernel: a task gets another one. A function that can fail answers with the
new cred or with a negative error number, as the kernel's do. Not in the model: groups, file capabilities,
set-user-ID programs, uid_map (users of a namespace below the first are not mapped) and securebits but for
SECURE_KEEP_CAPS.

Read in Linux 5.10, 6.1, 6.12 and 7.3; played against 5.6 to 7.3 (tests/model/recordings).
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ioflusher.kernel.capability import CapabilitySets
from ioflusher.kernel.task_flags import NEWEST, Version
from ioflusher.model.versions import holds

CAP_SETUID = 7
CAP_SETPCAP = 8

# include/uapi/linux/prctl.h; answered by security/commoncap.c, cap_task_prctl
PR_GET_KEEPCAPS = 7
PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_IS_SET = 1
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_LOWER = 3
PR_CAP_AMBIENT_CLEAR_ALL = 4

NO_ID = 0xFFFFFFFF  # (uid_t) -1: leave this one as it is


def cap_last_cap(version: Version) -> int:
    """The highest capability there is, CAP_LAST_CAP; include/uapi/linux/capability.h."""
    if version < (5, 8):
        return 37  # CAP_AUDIT_READ
    return 39 if version < (5, 9) else 40  # CAP_BPF, CAP_CHECKPOINT_RESTORE


def cap_full_set(version: Version) -> int:
    """All capabilities, CAP_FULL_SET."""
    return (2 << cap_last_cap(version)) - 1


@dataclass(frozen=True, slots=True)
class Cred:
    """struct cred, include/linux/cred.h.

    Attributes:
        uid, euid, suid: the real, effective and saved user.
        sets: the five sets of capabilities.
        keep_caps: SECURE_KEEP_CAPS of the securebits, which PR_SET_KEEPCAPS sets.
        user_ns_level: how many user namespaces deep; 0 is init_user_ns. Users of a namespace below it are not
            mapped, as none is before somebody writes uid_map.
    """

    uid: int = 0
    euid: int = 0
    suid: int = 0
    sets: CapabilitySets = field(default_factory=CapabilitySets)
    keep_caps: bool = False
    user_ns_level: int = 0

    @property
    def root(self) -> int | None:
        """Which user is 0 in this namespace, make_kuid(user_ns, 0); None where none is mapped."""
        return 0 if self.user_ns_level == 0 else None


def root_cred(version: Version = NEWEST) -> Cred:
    """What a root process has that nobody took anything from."""
    full = cap_full_set(version)
    return Cred(sets=CapabilitySets(0, full, full, full, 0))


def cap_capable(cred: Cred, user_ns_level: int, cap: int) -> bool:
    """Whether cred has a capability towards a user namespace that it is in, or one above.

    A capability counts in the namespace where it was got, never above: root of a container is nobody to
    init_user_ns. security/commoncap.c.
    """
    return cred.user_ns_level == user_ns_level and cred.sets.has(cap)


def cap_capset(old: Cred, effective: int, inheritable: int, permitted: int) -> Cred | int:
    """What capset(2) makes of the sets; security/commoncap.c."""
    sets = old.sets
    inh_is_capped = not cap_capable(old, old.user_ns_level, CAP_SETPCAP)
    if inh_is_capped and inheritable & ~(sets.inheritable | sets.permitted):
        return -errno.EPERM
    if inheritable & ~(sets.inheritable | sets.bounding):
        return -errno.EPERM
    if permitted & ~sets.permitted:
        return -errno.EPERM
    if effective & ~permitted:
        return -errno.EPERM
    ambient = sets.ambient & permitted & inheritable
    return replace(old, sets=CapabilitySets(inheritable, permitted, effective, sets.bounding, ambient))


def cap_emulate_setxuid(new: Cred, old: Cred) -> Cred:
    """What a change of user takes from the capabilities, and gives back; security/commoncap.c."""
    sets, root = new.sets, old.root
    permitted, effective, ambient = sets.permitted, sets.effective, sets.ambient
    if root in (old.uid, old.euid, old.suid) and root not in (new.uid, new.euid, new.suid):
        if not new.keep_caps:
            permitted = effective = 0
        ambient = 0
    if old.euid == root != new.euid:
        effective = 0
    if old.euid != root == new.euid:
        effective = permitted
    return replace(new, sets=replace(sets, permitted=permitted, effective=effective, ambient=ambient))


def setresuid(
    old: Cred,
    ruid: int,
    euid: int,
    suid: int,
    may_setuid: Callable[[], bool],
    version: Version = NEWEST,
) -> Cred | int:
    """What setresuid(2) makes of a cred; kernel/sys.c, __sys_setresuid.

    Args:
        old: the cred.
        ruid, euid, suid: the wanted users; NO_ID leaves one as it is.
        may_setuid: asks for CAP_SETUID.
        version: of Linux.
    """
    if old.root is None and {ruid, euid, suid} != {NO_ID}:
        return -errno.EINVAL  # no number has a mapping
    wanted = [(ruid, old.uid), (euid, old.euid), (suid, old.suid)]
    is_new = any(new not in (NO_ID, old.uid, old.euid, old.suid) for new, _ in wanted)
    if (is_new or not holds("setresuid_asks_when_needed", version)) and not may_setuid() and is_new:
        return -errno.EPERM
    uids = [now if new == NO_ID else new for new, now in wanted]
    return cap_emulate_setxuid(replace(old, uid=uids[0], euid=uids[1], suid=uids[2]), old)


def cap_bprm_creds_from_file(
    old: Cred, no_new_privs: bool, ns_capable: Callable[[int], bool], version: Version = NEWEST
) -> Cred:
    """What execve(2) of a program without file capabilities makes of a cred; security/commoncap.c.

    Root gets all back that its bounding set leaves it, in its own namespace and where no_new_privs does not
    forbid it; anybody else keeps the ambient set alone. `ns_capable` asks for a capability in the cred's own
    user namespace; having asked is all that comes of it.
    """
    sets, root = old.sets, old.root
    permitted, euid = 0, old.euid
    effective = old.euid == root
    if root in (old.euid, old.uid):  # handle_privileged_root
        permitted = sets.bounding | sets.inheritable
    is_setid = euid != old.uid and not holds("exec_compares_effective_user", version)
    gained = permitted & ~sets.permitted
    if (is_setid or gained) and no_new_privs:  # LSM_UNSAFE_NO_NEW_PRIVS: no more than it had
        ns_capable(CAP_SETUID)
        euid = old.uid
        permitted &= sets.permitted
    ambient = 0 if is_setid else sets.ambient
    permitted |= ambient
    raised = permitted if effective else ambient
    after = CapabilitySets(sets.inheritable, permitted, raised, sets.bounding, ambient)
    return replace(old, euid=euid, suid=euid, sets=after, keep_caps=False)


def create_user_ns(old: Cred, version: Version = NEWEST) -> Cred | int:
    """What unshare(CLONE_NEWUSER) makes of a cred; kernel/user_namespace.c."""
    if old.root is None:  # kuid_has_mapping(parent_ns, owner)
        return -errno.EPERM
    full = cap_full_set(version)
    sets = CapabilitySets(0, full, full, full, 0)
    return replace(old, sets=sets, keep_caps=False, user_ns_level=old.user_ns_level + 1)


def cap_task_prctl(
    old: Cred,
    option: int,
    arguments: tuple[int, int, int, int],
    ns_capable: Callable[[int], bool],
    version: Version = NEWEST,
) -> Cred | int:
    """prctl(2)'s options of capabilities: the new cred, a value or an error; security/commoncap.c.

    Args:
        old: the cred.
        option: one of those at the top.
        arguments: 2 to 5 of the call, unsigned long.
        ns_capable: asks for a capability in the cred's own user namespace.
        version: of Linux.
    """
    arg2, arg3, arg4, arg5 = arguments
    sets, valid = old.sets, cap_last_cap(version)
    if option == PR_CAPBSET_READ:
        return -errno.EINVAL if arg2 > valid else sets.bounding >> arg2 & 1
    if option == PR_CAPBSET_DROP:
        if not ns_capable(CAP_SETPCAP):
            return -errno.EPERM
        if arg2 > valid:
            return -errno.EINVAL
        return replace(old, sets=replace(sets, bounding=sets.bounding & ~(1 << arg2)))
    if option == PR_GET_KEEPCAPS:
        return int(old.keep_caps)
    if option == PR_SET_KEEPCAPS:
        return -errno.EINVAL if arg2 > 1 else replace(old, keep_caps=bool(arg2))
    return _ambient(old, arg2, arg3, arg4 | arg5, valid)


def _ambient(old: Cred, what: int, cap: int, rest: int, valid: int) -> Cred | int:
    """PR_CAP_AMBIENT."""
    sets = old.sets
    if what == PR_CAP_AMBIENT_CLEAR_ALL:
        return -errno.EINVAL if cap | rest else replace(old, sets=replace(sets, ambient=0))
    if cap > valid or rest:
        return -errno.EINVAL
    bit = 1 << cap
    if what == PR_CAP_AMBIENT_IS_SET:
        return int(bool(sets.ambient & bit))
    if what == PR_CAP_AMBIENT_RAISE:
        if not sets.permitted & sets.inheritable & bit:
            return -errno.EPERM
        return replace(old, sets=replace(sets, ambient=sets.ambient | bit))
    if what == PR_CAP_AMBIENT_LOWER:
        return replace(old, sets=replace(sets, ambient=sets.ambient & ~bit))
    return -errno.EINVAL
