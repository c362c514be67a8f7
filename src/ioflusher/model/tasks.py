"""Tasks: their flags and credentials, what new ones inherit, and the system calls that change them.

Every function is the kernel's of that name, as far as the IO_FLUSHER state and CAP_SYS_RESOURCE go: `current`
is the calling task, the answer is a value or a negative error number. Read in Linux 5.10, 6.1, 6.12 and 7.3;
tests/model plays the same calls in the model and in guests, and compares every answer.
"""

import errno
from dataclasses import dataclass, field

from ioflusher.kernel.capability import CAP_SYS_RESOURCE, CapabilitySets
from ioflusher.kernel.prctl import PR_GET_IO_FLUSHER, PR_SET_IO_FLUSHER
from ioflusher.kernel.task_flags import NEWEST, PF_IO_FLUSHER, TaskFlags, Version
from ioflusher.model.credentials import (
    CAP_SETUID,
    PR_CAP_AMBIENT,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    PR_GET_KEEPCAPS,
    PR_SET_KEEPCAPS,
    Cred,
    cap_bprm_creds_from_file,
    cap_capable,
    cap_capset,
    cap_full_set,
    cap_task_prctl,
    create_user_ns,
    root_cred,
    setresuid,
)
from ioflusher.model.errors import ModelError
from ioflusher.model.versions import holds

# include/linux/sched.h
PF_IDLE = 0x00000002
PF_WQ_WORKER = 0x00000020
PF_FORKNOEXEC = 0x00000040  # forked, but has executed nothing
PF_SUPERPRIV = 0x00000100  # used a privilege
PF_NOFREEZE = 0x00008000
PF_RANDOMIZE = 0x00400000
PF_NO_SETAFFINITY = 0x04000000

# include/uapi/linux/sched.h
CLONE_VM = 0x00000100
CLONE_SIGHAND = 0x00000800
CLONE_VFORK = 0x00004000
CLONE_THREAD = 0x00010000
CLONE_NEWUSER = 0x10000000

# include/uapi/linux/prctl.h
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39

_OF_CAPABILITIES = (PR_GET_KEEPCAPS, PR_SET_KEEPCAPS, PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_CAP_AMBIENT)
_UNSIGNED_LONG = (1 << 64) - 1


@dataclass(slots=True, eq=False)
class TaskStruct:
    """struct task_struct, include/linux/sched.h: a thread.

    Attributes:
        tid: its number.
        flags: PF_* bits.
        cred: who it is.
        no_new_privs: PR_SET_NO_NEW_PRIVS.
        thread_group: the living threads of its process, itself among them, the leader first.
    """

    tid: int = 1
    flags: int = PF_RANDOMIZE
    cred: Cred = field(default_factory=root_cred)
    no_new_privs: bool = False
    thread_group: list["TaskStruct"] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.thread_group.append(self)

    @property
    def tgid(self) -> int:
        """The number of its process."""
        return self.thread_group[0].tid

    @property
    def io_flusher(self) -> bool:
        """Whether it has both bits of the IO_FLUSHER state."""
        return TaskFlags(self.flags).io_flusher

    @property
    def capabilities(self) -> CapabilitySets:
        """The sets of its cred."""
        return self.cred.sets


def capable(current: TaskStruct, cap: int) -> bool:
    """Whether it has a capability in init_user_ns; having used it shows in its flags. kernel/capability.c."""
    return _ns_capable(current, 0, cap)


def ns_capable(current: TaskStruct, cap: int) -> bool:
    """Whether it has a capability in its own user namespace; kernel/capability.c."""
    return _ns_capable(current, current.cred.user_ns_level, cap)


def _ns_capable(current: TaskStruct, user_ns_level: int, cap: int) -> bool:
    able = cap_capable(current.cred, user_ns_level, cap)
    if able:
        current.flags |= PF_SUPERPRIV
    return able


def _commit_creds(current: TaskStruct, new: Cred | int) -> int:
    """Take a new cred, or say why there is none; kernel/cred.c."""
    if isinstance(new, int):
        return new
    current.cred = new
    return 0


def sys_prctl(
    current: TaskStruct,
    option: int,
    arg2: int = 0,
    arg3: int = 0,
    arg4: int = 0,
    arg5: int = 0,
    version: Version = NEWEST,
) -> int:
    """prctl(2); kernel/sys.c.

    The kernel takes `option` as an int and the arguments as unsigned long, whatever else is in the registers.

    Raises:
        ModelError: for an option that the model does not have: what the kernel answers is not guessed.
    """
    option &= 0xFFFFFFFF
    arg2, arg3, arg4, arg5 = (argument & _UNSIGNED_LONG for argument in (arg2, arg3, arg4, arg5))
    more = bool(arg3 or arg4 or arg5)
    if option in (PR_SET_IO_FLUSHER, PR_GET_IO_FLUSHER):
        if not holds("prctl_io_flusher", version):
            return -errno.EINVAL  # as for any number that is no option
        if option == PR_SET_IO_FLUSHER:
            return _set_io_flusher(current, arg2, more)
        return _get_io_flusher(current, bool(arg2) or more)
    if option == PR_SET_NO_NEW_PRIVS:
        if arg2 != 1 or more:
            return -errno.EINVAL
        current.no_new_privs = True
        return 0
    if option == PR_GET_NO_NEW_PRIVS:
        return -errno.EINVAL if arg2 or more else int(current.no_new_privs)
    if option in _OF_CAPABILITIES:
        arguments = (arg2, arg3, arg4, arg5)
        new = cap_task_prctl(current.cred, option, arguments, lambda cap: ns_capable(current, cap), version)
        return new if isinstance(new, int) else _commit_creds(current, new)
    raise ModelError(f"the model has no prctl option {option}", hint=f"it has {sorted(PRCTL_OPTIONS)}")


PRCTL_OPTIONS = frozenset(
    {PR_SET_IO_FLUSHER, PR_GET_IO_FLUSHER, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, *_OF_CAPABILITIES}
)


def _set_io_flusher(current: TaskStruct, state: int, more: bool) -> int:
    """PR_SET_IO_FLUSHER: the capability is asked for before the arguments are looked at."""
    if not capable(current, CAP_SYS_RESOURCE):
        return -errno.EPERM
    if more:
        return -errno.EINVAL
    if state == 1:
        current.flags |= PF_IO_FLUSHER
    elif not state:
        current.flags &= ~PF_IO_FLUSHER
    else:
        return -errno.EINVAL
    return 0


def _get_io_flusher(current: TaskStruct, arguments: bool) -> int:
    """PR_GET_IO_FLUSHER: 1 only where both bits are set."""
    if not capable(current, CAP_SYS_RESOURCE):
        return -errno.EPERM
    if arguments:
        return -errno.EINVAL
    return int(current.flags & PF_IO_FLUSHER == PF_IO_FLUSHER)


def sys_capset(
    current: TaskStruct, effective: int, permitted: int, inheritable: int, version: Version = NEWEST
) -> int:
    """capset(2) of the calling thread; kernel/capability.c. Bits above CAP_LAST_CAP are cut off."""
    valid = cap_full_set(version)
    return _commit_creds(
        current, cap_capset(current.cred, effective & valid, inheritable & valid, permitted & valid)
    )


def sys_setresuid(current: TaskStruct, ruid: int, euid: int, suid: int, version: Version = NEWEST) -> int:
    """setresuid(2) of the calling thread alone: the C library does it to all threads. kernel/sys.c."""
    new = setresuid(current.cred, ruid, euid, suid, lambda: ns_capable(current, CAP_SETUID), version)
    return _commit_creds(current, new)


def sys_unshare(current: TaskStruct, unshare_flags: int, version: Version = NEWEST) -> int:
    """unshare(2) with CLONE_NEWUSER, which a process with several threads may not; kernel/fork.c.

    Raises:
        ModelError: for other flags.
    """
    if unshare_flags != CLONE_NEWUSER:
        raise ModelError(f"the model has unshare of CLONE_NEWUSER alone, not of {unshare_flags:#x}")
    if len(current.thread_group) > 1:  # check_unshare_flags: it implies CLONE_THREAD
        return -errno.EINVAL
    return _commit_creds(current, create_user_ns(current.cred, version))


def copy_process(
    current: TaskStruct, clone_flags: int, tid: int, version: Version = NEWEST
) -> TaskStruct | int:
    """What fork, vfork, clone and clone3 make: the new task, which has number `tid`; kernel/fork.c.

    The flags are copied, but for some that belong to the old task; so the child, a thread or a process, is in
    the IO_FLUSHER state or not as its parent is at that moment.
    """
    if clone_flags & CLONE_THREAD and not clone_flags & CLONE_SIGHAND:
        return -errno.EINVAL
    if clone_flags & CLONE_SIGHAND and not clone_flags & CLONE_VM:
        return -errno.EINVAL
    if clone_flags & CLONE_THREAD and clone_flags & CLONE_NEWUSER:
        return -errno.EINVAL
    cred: Cred | int = current.cred
    if clone_flags & CLONE_NEWUSER:
        cred = create_user_ns(current.cred, version)
    if isinstance(cred, int):
        return cred
    flags = current.flags & ~(PF_SUPERPRIV | PF_WQ_WORKER | PF_IDLE | PF_NO_SETAFFINITY) | PF_FORKNOEXEC
    group = current.thread_group if clone_flags & CLONE_THREAD else []
    return TaskStruct(tid, flags, cred, current.no_new_privs, group)


def do_execve(current: TaskStruct, version: Version = NEWEST) -> None:
    """execve(2) of a program without set-user-ID bit and file capabilities; fs/exec.c.

    The calling thread lives on, with its flags, as the only one of its process and under the leader's number.
    """
    current.cred = cap_bprm_creds_from_file(
        current.cred, current.no_new_privs, lambda cap: ns_capable(current, cap), version
    )
    current.tid = current.tgid  # de_thread
    current.thread_group[:] = [current]
    # begin_new_exec, then fs/binfmt_elf.c
    current.flags &= ~(PF_RANDOMIZE | PF_FORKNOEXEC | PF_NOFREEZE | PF_NO_SETAFFINITY)
    current.flags |= PF_RANDOMIZE


def do_exit(current: TaskStruct) -> None:
    """The end of a thread; kernel/exit.c.

    Raises:
        ModelError: for a leader that other threads outlive, who would go on under its number.
    """
    if len(current.thread_group) > 1 and current.thread_group[0] is current:
        raise ModelError("the model has no leader that ends before its threads")
    current.thread_group.remove(current)
