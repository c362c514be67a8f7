"""The rules of the call, of inheritance and of scopes, each with its reason.

test_recorded_calls.py holds the same functions against what kernels answered.
"""

import errno
from dataclasses import replace

import pytest

from ioflusher.kernel.capability import CAP_SYS_RESOURCE, CapabilitySets
from ioflusher.kernel.prctl import PR_GET_IO_FLUSHER, PR_SET_IO_FLUSHER
from ioflusher.kernel.task_flags import (
    PF_IO_FLUSHER,
    PF_LOCAL_THROTTLE,
    PF_MEMALLOC_NOFS,
    PF_MEMALLOC_NOIO,
)
from ioflusher.model import credentials, gfp, tasks
from ioflusher.model.credentials import Cred, root_cred
from ioflusher.model.errors import ModelError
from ioflusher.model.scopes import (
    memalloc_nofs_restore,
    memalloc_nofs_save,
    memalloc_noio_restore,
    memalloc_noio_save,
)
from ioflusher.model.tasks import (
    CLONE_SIGHAND,
    CLONE_THREAD,
    CLONE_VM,
    PF_FORKNOEXEC,
    PF_SUPERPRIV,
    TaskStruct,
    copy_process,
    do_execve,
    do_exit,
    sys_prctl,
)

THREAD = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD
RESOURCE = 1 << CAP_SYS_RESOURCE


def nobody() -> TaskStruct:
    """A task without any capability."""
    return TaskStruct(cred=Cred(65534, 65534, 65534))


def child(parent: TaskStruct, clone_flags: int = 0, tid: int = 2) -> TaskStruct:
    """A new task, which there must be."""
    made = copy_process(parent, clone_flags, tid)
    assert isinstance(made, TaskStruct)
    return made


def test_set_get_and_clear() -> None:
    """Both bits, and the answer of GET."""
    task = TaskStruct()
    assert sys_prctl(task, PR_GET_IO_FLUSHER) == 0
    assert sys_prctl(task, PR_SET_IO_FLUSHER, 1) == 0
    assert task.flags & PF_IO_FLUSHER == PF_IO_FLUSHER
    assert sys_prctl(task, PR_GET_IO_FLUSHER) == 1
    assert sys_prctl(task, PR_SET_IO_FLUSHER, 0) == 0
    assert task.flags & PF_IO_FLUSHER == 0


def test_one_bit_is_not_the_state() -> None:
    """A NOIO scope, or a thread of nfsd, is no IO_FLUSHER."""
    for bit in (PF_MEMALLOC_NOIO, PF_LOCAL_THROTTLE):
        task = TaskStruct(flags=bit)
        assert sys_prctl(task, PR_GET_IO_FLUSHER) == 0


def test_the_capability_is_asked_for_first() -> None:
    """EPERM for wrong arguments, too; and what was refused shows nothing of a privilege."""
    task = nobody()
    assert sys_prctl(task, PR_SET_IO_FLUSHER, 7, 1) == -errno.EPERM
    assert sys_prctl(task, PR_GET_IO_FLUSHER, 7) == -errno.EPERM
    assert task.flags & PF_SUPERPRIV == 0


def test_wrong_arguments_use_the_privilege_and_change_nothing() -> None:
    """EINVAL comes after capable(), which marks the task."""
    for wrong in ((2,), (1, 1), (1, 0, 1), (1, 0, 0, 1), (1 << 63,)):
        task = TaskStruct()
        assert sys_prctl(task, PR_SET_IO_FLUSHER, *wrong) == -errno.EINVAL
        assert task.flags & (PF_IO_FLUSHER | PF_SUPERPRIV) == PF_SUPERPRIV
    for wrong in ((1,), (0, 1), (0, 0, 1), (0, 0, 0, 1)):
        assert sys_prctl(TaskStruct(), PR_GET_IO_FLUSHER, *wrong) == -errno.EINVAL


def test_the_option_is_an_int_and_arguments_are_long() -> None:
    """Upper bits of the option's register do not count; those of an argument do."""
    task = TaskStruct()
    assert sys_prctl(task, PR_SET_IO_FLUSHER | 5 << 32, 1) == 0
    assert task.io_flusher
    assert sys_prctl(task, PR_SET_IO_FLUSHER, 1 | 1 << 32) == -errno.EINVAL
    assert sys_prctl(task, PR_SET_IO_FLUSHER, 0, 1 << 40) == -errno.EINVAL
    assert sys_prctl(task, PR_SET_IO_FLUSHER, 1, 1 << 64) == 0  # a register has 64 bits


def test_before_it_was_there() -> None:
    """A kernel before 5.6 answers EINVAL to everybody, and asks for no capability."""
    for task in (TaskStruct(), nobody()):
        assert sys_prctl(task, PR_SET_IO_FLUSHER, 1, version=(5, 5)) == -errno.EINVAL
        assert sys_prctl(task, PR_GET_IO_FLUSHER, version=(5, 5)) == -errno.EINVAL
        assert task.flags & (PF_IO_FLUSHER | PF_SUPERPRIV) == 0


def test_an_option_that_the_model_has_not() -> None:
    """No answer is made up for it."""
    with pytest.raises(ModelError, match="no prctl option 15") as caught:
        sys_prctl(TaskStruct(), 15)
    assert str(PR_SET_IO_FLUSHER) in str(caught.value.hint)


def test_root_of_a_user_namespace_is_refused() -> None:
    """All capabilities there, none towards init_user_ns; the bits that it came with stay."""
    task = TaskStruct()
    sys_prctl(task, PR_SET_IO_FLUSHER, 1)
    assert tasks.sys_unshare(task, tasks.CLONE_NEWUSER) == 0
    assert task.capabilities.has(CAP_SYS_RESOURCE)
    assert sys_prctl(task, PR_SET_IO_FLUSHER, 0) == -errno.EPERM
    assert task.io_flusher


def test_who_inherits() -> None:
    """New threads, processes and executed programs; not those that were there."""
    task = TaskStruct()
    old = child(task, THREAD)
    sys_prctl(task, PR_SET_IO_FLUSHER, 1)
    heirs = [child(task, THREAD, 3), child(task, 0, 4), child(task, CLONE_VM, 5)]
    assert not old.io_flusher
    for heir in heirs:
        assert heir.io_flusher
        assert heir.flags & (PF_FORKNOEXEC | PF_SUPERPRIV) == PF_FORKNOEXEC
    program = child(task, 0, 6)
    do_execve(program)
    assert program.io_flusher
    assert program.flags & PF_FORKNOEXEC == 0


def test_a_thread_that_executes_takes_the_process_over() -> None:
    """Its flags, the leader's number; the others, the state of the leader among them, are gone."""
    leader = TaskStruct(100)
    thread, other = child(leader, THREAD, 101), child(leader, THREAD, 102)
    sys_prctl(leader, PR_SET_IO_FLUSHER, 1)
    sys_prctl(other, PR_SET_IO_FLUSHER, 1)
    do_execve(thread)
    assert (thread.tid, thread.tgid, thread.thread_group) == (100, 100, [thread])
    assert not thread.io_flusher


def test_a_leader_that_ends_first_is_refused() -> None:
    """The model does not have it, and says so."""
    leader = TaskStruct(100)
    thread = child(leader, THREAD, 101)
    with pytest.raises(ModelError, match="no leader that ends before its threads"):
        do_exit(leader)
    do_exit(thread)
    assert leader.thread_group == [leader]


def test_numbers_of_the_interface() -> None:
    """As programs give them to clone(2); a task has a number, and 0 is nobody's."""
    numbers = (CLONE_VM, CLONE_SIGHAND, tasks.CLONE_VFORK, CLONE_THREAD, tasks.CLONE_NEWUSER)
    assert numbers == (0x100, 0x800, 0x4000, 0x10000, 0x10000000)
    assert TaskStruct().tgid == 1


@pytest.mark.parametrize(("version", "last"), [((5, 7), 37), ((5, 8), 39), ((5, 9), 40), ((6, 12), 40)])
def test_the_last_capability_there_is(version: tuple[int, int], last: int) -> None:
    """It can be asked for, dropped and raised; one above it is invalid."""
    task = TaskStruct()
    everything = CapabilitySets(*[(1 << 64) - 1] * 5)
    task.cred = replace(task.cred, sets=everything)

    def prctl(option: int, arg2: int, arg3: int = 0) -> int:
        return sys_prctl(task, option, arg2, arg3, version=version)

    raised = (credentials.PR_CAP_AMBIENT, credentials.PR_CAP_AMBIENT_RAISE)
    assert prctl(credentials.PR_CAPBSET_READ, last) == 1
    assert prctl(credentials.PR_CAPBSET_READ, last + 1) == -errno.EINVAL
    assert prctl(*raised, last) == 0
    assert prctl(*raised, last + 1) == -errno.EINVAL
    assert prctl(credentials.PR_CAPBSET_DROP, last + 1) == -errno.EINVAL
    assert prctl(credentials.PR_CAPBSET_DROP, last) == 0
    assert prctl(credentials.PR_CAPBSET_READ, last) == 0


def test_who_may_add_to_the_inheritable_set() -> None:
    """What is permitted, anybody; what is in the bounding set, who has CAP_SETPCAP; anything else nobody."""
    setpcap = 1 << credentials.CAP_SETPCAP
    permitted, bounding, neither = 1 << 20, 1 << 21, 1 << 22
    for capable in (False, True):
        has = permitted | (setpcap if capable else 0)
        old = replace(root_cred(), sets=CapabilitySets(0, has, has, bounding | has, 0))
        allowed = [
            isinstance(credentials.cap_capset(old, has, inheritable, has), Cred)
            for inheritable in (permitted, bounding, neither)
        ]
        assert allowed == [True, capable, False]


def test_the_flag_that_pins_pages() -> None:
    """One bit, include/linux/sched.h: whoever pins pages for long takes __GFP_MOVABLE away."""
    assert gfp.PF_MEMALLOC_PIN == 1 << 28


def test_numbers_of_the_kernels_headers() -> None:
    """Flags of include/linux/sched.h, which logs show, and capabilities of capability.h."""
    flags = (tasks.PF_IDLE, tasks.PF_WQ_WORKER, tasks.PF_NOFREEZE, tasks.PF_NO_SETAFFINITY)
    assert flags == (0x2, 0x20, 0x8000, 0x04000000)
    assert (credentials.CAP_SETUID, credentials.CAP_SETPCAP) == (7, 8)


@pytest.mark.parametrize(
    "flag", [PF_SUPERPRIV, tasks.PF_WQ_WORKER, tasks.PF_IDLE, tasks.PF_NO_SETAFFINITY], ids=hex
)
def test_what_belongs_to_the_parent_alone(flag: int) -> None:
    """A child is no worker, no idle task, may be moved, and has used no privilege."""
    assert child(TaskStruct(flags=PF_IO_FLUSHER | flag)).flags == PF_IO_FLUSHER | PF_FORKNOEXEC


@pytest.mark.parametrize("flag", [tasks.PF_NOFREEZE, tasks.PF_NO_SETAFFINITY, PF_FORKNOEXEC], ids=hex)
def test_what_a_program_that_is_executed_does_not_keep(flag: int) -> None:
    """begin_new_exec() takes what a thread of the kernel had, and that it executed nothing."""
    task = TaskStruct(flags=PF_IO_FLUSHER | flag)
    do_execve(task)
    assert task.flags == PF_IO_FLUSHER | tasks.PF_RANDOMIZE


def test_a_child_may_have_a_user_namespace_of_its_own() -> None:
    """CLONE_NEWUSER of a process: all capabilities there, none towards init_user_ns."""
    made = child(TaskStruct(), tasks.CLONE_NEWUSER)
    assert made.capabilities.has(CAP_SYS_RESOURCE)
    assert sys_prctl(made, PR_SET_IO_FLUSHER, 1) == -errno.EPERM


def test_what_root_begins_with() -> None:
    """Nothing that executed programs would inherit, everything else."""
    full = (1 << 41) - 1
    assert root_cred().sets == CapabilitySets(0, full, full, full, 0)


def test_the_effective_user_becomes_root_again() -> None:
    """What is permitted is effective again; from one other user to another nothing changes."""
    sets = CapabilitySets(0, RESOURCE, 0, RESOURCE, 0)
    old = Cred(0, 1000, 1001, sets)
    for euid, effective in ((0, RESOURCE), (1001, 0)):
        new = credentials.setresuid(old, credentials.NO_ID, euid, credentials.NO_ID, lambda: False)
        assert isinstance(new, Cred)
        assert new.sets == replace(sets, effective=effective)


@pytest.mark.parametrize(("version", "kept"), [((6, 16), 0), ((6, 17), RESOURCE)])
def test_the_ambient_set_of_two_users(version: tuple[int, int], kept: int) -> None:
    """A task whose real and effective users differ keeps it when it executes, since 6.17."""
    sets = CapabilitySets(RESOURCE, RESOURCE, RESOURCE, RESOURCE, RESOURCE)
    task = TaskStruct(cred=Cred(1000, 1001, 1001, sets))
    do_execve(task, version)
    assert (task.capabilities.ambient, task.capabilities.effective) == (kept, kept)


def test_the_ambient_set_is_lowered_and_cleared() -> None:
    """One capability of two is taken out, then all."""
    both = RESOURCE | 1 << credentials.CAP_SETUID
    task = TaskStruct(cred=Cred(1000, 1000, 1000, CapabilitySets(both, both, both, both, both)))
    option = credentials.PR_CAP_AMBIENT
    assert sys_prctl(task, option, credentials.PR_CAP_AMBIENT_LOWER, CAP_SYS_RESOURCE) == 0
    assert task.capabilities.ambient == 1 << credentials.CAP_SETUID
    assert sys_prctl(task, option, credentials.PR_CAP_AMBIENT_CLEAR_ALL) == 0
    assert task.capabilities.ambient == 0


def test_clone_flags_that_the_kernel_refuses() -> None:
    """A thread shares signal handlers, those share memory, and it stays in its user namespace."""
    for wrong in (CLONE_THREAD, CLONE_SIGHAND, CLONE_THREAD | CLONE_SIGHAND, THREAD | tasks.CLONE_NEWUSER):
        assert copy_process(TaskStruct(), wrong, 2) == -errno.EINVAL


def test_root_gets_a_dropped_capability_back_when_it_executes() -> None:
    """Unless it is gone from the bounding set, or no_new_privs forbids it."""
    dropped = replace(root_cred().sets, effective=0, permitted=0)
    for bounding, no_new_privs, back in ((RESOURCE, False, True), (0, False, False), (RESOURCE, True, False)):
        task = TaskStruct(
            cred=Cred(sets=replace(dropped, bounding=bounding)),
            no_new_privs=no_new_privs,
        )
        do_execve(task)
        assert task.capabilities.has(CAP_SYS_RESOURCE) == back


def test_a_service_keeps_it_by_the_ambient_set() -> None:
    """As AmbientCapabilities= of a unit has it: another user, the capability, and a program executed."""
    sets = CapabilitySets(RESOURCE, RESOURCE, RESOURCE, RESOURCE, RESOURCE)
    task = TaskStruct(cred=Cred(65534, 65534, 65534, sets))
    do_execve(task)
    assert sys_prctl(task, PR_SET_IO_FLUSHER, 1) == 0
    task.cred = replace(task.cred, sets=replace(task.capabilities, ambient=0))
    do_execve(task)
    assert sys_prctl(task, PR_SET_IO_FLUSHER, 0) == -errno.EPERM
    assert task.io_flusher  # what was set stays


def test_a_user_is_changed_with_keepcaps() -> None:
    """The permitted set stays, the effective one has to be raised again."""
    task = TaskStruct()
    assert sys_prctl(task, credentials.PR_SET_KEEPCAPS, 1) == 0
    assert tasks.sys_setresuid(task, 65534, 65534, 65534) == 0
    assert sys_prctl(task, PR_SET_IO_FLUSHER, 1) == -errno.EPERM
    assert tasks.sys_capset(task, RESOURCE, RESOURCE, 0) == 0
    assert sys_prctl(task, PR_SET_IO_FLUSHER, 1) == 0


@pytest.mark.parametrize("version", [(6, 8), (6, 9)])
def test_scopes_leave_the_state_as_it_was(version: tuple[int, int]) -> None:
    """However deep they are nested, with the state and without, in both forms of the kernel's functions."""
    for state in (0, PF_IO_FLUSHER):
        task = TaskStruct(flags=state)
        outer = memalloc_noio_save(task, version)
        inner = memalloc_noio_save(task, version)
        files = memalloc_nofs_save(task, version)
        assert task.flags == state | PF_MEMALLOC_NOIO | PF_MEMALLOC_NOFS
        memalloc_nofs_restore(task, files, version)
        memalloc_noio_restore(task, inner, version)
        assert task.flags == state | PF_MEMALLOC_NOIO
        memalloc_noio_restore(task, outer, version)
        assert task.flags == state


def test_scopes_that_end_in_the_wrong_order() -> None:
    """Where the two forms differ: the later one ends the scope with the one that began it."""
    ends = {}
    for version in ((6, 8), (6, 9)):
        task = TaskStruct(flags=0)
        first = memalloc_noio_save(task, version)
        second = memalloc_noio_save(task, version)
        memalloc_noio_restore(task, first, version)
        ends[version] = [task.flags]
        memalloc_noio_restore(task, second, version)
        ends[version].append(task.flags)
    assert ends == {(6, 8): [0, PF_MEMALLOC_NOIO], (6, 9): [0, 0]}
