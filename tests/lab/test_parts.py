"""The lab's pure parts: archive, module order, command line, channel, sizes; and that a pair is a pair."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioflusher.lab.channel import ChannelReader, Event, parse_event
from ioflusher.lab.errors import LabError
from ioflusher.lab.experiment import disk_sizes, guest_for
from ioflusher.lab.guest.play import daemon_argv
from ioflusher.lab.guest.work import pattern, pieces
from ioflusher.lab.initramfs import load_order, newc
from ioflusher.lab.job import ExecJob, ScenarioJob, dump_job, load_job
from ioflusher.lab.kernels import busybox, bzimage_release, find_kernel, is_static
from ioflusher.lab.qemu import Accelerator, Disk, Machine, qemu_argv
from ioflusher.lab.scenario import builtin_scenarios, parse_scenario


@pytest.mark.parametrize("name", sorted(builtin_scenarios()))
def test_the_halves_differ_in_the_state_alone(name: str) -> None:
    """Machine, disks, order and daemon of both halves are equal but for the one word of the daemon."""
    text = builtin_scenarios()[name]
    scenario = parse_scenario(text)
    remote = "nbd://10.0.2.2:10809"
    without, with_ = ScenarioJob(text, False, remote), ScenarioJob(text, True, remote)
    first, second = json.loads(dump_job(without)), json.loads(dump_job(with_))
    assert {key for key in first if first[key] != second[key]} == {"io_flusher"}
    argv = daemon_argv(without, scenario), daemon_argv(with_, scenario)
    changed = [pair for pair in zip(*argv, strict=True) if pair[0] != pair[1]]
    # a server of others runs by the same words: the state is set, or not, just before it is executed
    assert changed == ([] if scenario.daemon.command else [("--no-io-flusher", "--io-flusher")])
    # nothing else of a half is made from the job: the machine comes from the scenario
    assert guest_for(scenario, ()) == guest_for(scenario, ())
    assert disk_sizes(scenario) == disk_sizes(scenario)


def machine() -> Machine:
    """A machine whose paths have a comma, which QEMU's options would split at."""
    return Machine(
        kernel=Path("/k"),
        initramfs=Path("/i"),
        accelerator=Accelerator.TCG,
        memory_bytes=512 << 20,
        cpus=1,
        disks=(Disk("nbd+unix:///?socket=/s", readonly=True), Disk("/a,b")),
        ports=(("org.ioflusher.events", Path("/p")),),
        network=False,
        console=Path("/c"),
        control=Path("/m"),
    )


@pytest.mark.live
@pytest.mark.needs("qemu-system-x86_64", "setpriv")
def test_the_command_line_is_a_function_of_the_machine() -> None:
    """Equal machines give equal words; paths with commas are escaped; no network unless asked."""
    argv = qemu_argv(machine())
    assert argv == qemu_argv(machine())
    assert any(word.endswith("file=/a,,b") for word in argv)
    assert not any("netdev" in word for word in argv)
    assert "netdev=net0" in " ".join(qemu_argv(replace(machine(), network=True)))
    assert argv[:3] == ["setpriv", "--pdeathsig", "KILL"]


def test_load_order_puts_needs_first() -> None:
    """Each module comes after what it needs, once; built-in ones are left out; unknown ones are named."""
    dep = "kernel/a-b.ko.xz: kernel/c.ko.xz kernel/d.ko.xz\nkernel/c.ko.xz: kernel/d.ko.xz\nkernel/d.ko.xz:\n"
    order = load_order(dep, "kernel/virtio.ko\n", ["virtio", "a_b", "c"])
    assert order == ["kernel/d.ko.xz", "kernel/c.ko.xz", "kernel/a-b.ko.xz"]
    with pytest.raises(LabError, match="no module xyz"):
        load_order(dep, "", ["xyz"])


@pytest.mark.live
def test_busybox_reads_the_archive_back(tmp_path: Path) -> None:
    """cpio, as the guest's own busybox has it, finds the names, modes and contents that went in."""
    entries = [("dir", 0o040755, b""), ("dir/file", 0o100600, b"content"), ("odd", 0o100755, b"12345")]
    program = str(busybox())
    subprocess.run(
        [program, "cpio", "-idm"],
        input=newc(entries),
        cwd=tmp_path,
        timeout=30,
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "dir/file").read_bytes() == b"content"
    assert (tmp_path / "odd").stat().st_mode == 0o100755
    assert is_static(Path(program).read_bytes())


@pytest.mark.live
def test_a_dynamic_program_is_not_static() -> None:
    """The first process of a guest has no libraries, so a program that needs some is refused."""
    shell = shutil.which("sh")
    assert shell is not None
    assert not is_static(Path(shell).read_bytes())
    assert not is_static(b"#!/bin/sh\n")


def test_a_kernel_that_is_none_is_refused(tmp_path: Path) -> None:
    """A file without the boot signature, a missing file and a senseless release are told apart."""
    fake = tmp_path / "vmlinuz"
    fake.write_bytes(b"\0" * 4096)
    with pytest.raises(LabError, match="not an x86 bzImage"):
        find_kernel(str(fake), cache=tmp_path)
    with pytest.raises(LabError, match="no kernel image at"):
        find_kernel("/nowhere/vmlinuz", cache=tmp_path)
    with pytest.raises(LabError, match="not a kernel: 'six'"):
        find_kernel("six", cache=tmp_path)
    with pytest.raises(LabError, match=r"no kernel 5\.99") as caught:
        find_kernel("5.99", cache=tmp_path, download=False)
    assert "lab setup" in (caught.value.hint or "")


def test_the_release_is_read_from_the_header() -> None:
    """The version string stands where the boot header points."""
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x300).to_bytes(2, "little")
    image[0x500:0x520] = b"6.12.1-test (someone@host) #1 SM"
    assert bzimage_release(bytes(image)) == "6.12.1-test"


@given(st.lists(st.tuples(st.text(max_size=20), st.floats(0, 1e6)), max_size=8), st.integers(1, 40))
def test_events_survive_any_cut(said: list[tuple[str, float]], step: int) -> None:
    """Events come out as they went in, however the bytes are cut."""
    events = [Event(kind, round(time_s, 3), {"text": kind}) for kind, time_s in said]
    data = b"".join(event.to_line() for event in events)
    reader = ChannelReader()
    found = [event for at in range(0, len(data), step) for event in reader.feed(data[at : at + step])]
    assert found == events


@given(st.binary(max_size=200))
def test_any_line_is_an_event(line: bytes) -> None:
    """A line that is no event is kind "garbled", never an exception."""
    assert isinstance(parse_event(line).kind, str)


@pytest.mark.parametrize("job", [ExecJob(("a", "b"), "/", {"x": "y"}), ScenarioJob("t", True, "")])
def test_jobs_survive_the_way(job: ExecJob | ScenarioJob) -> None:
    """An order read back is the order that was written."""
    assert load_job(dump_job(job)) == job


@given(st.integers(0, 4096), st.integers(1, 5000))
def test_pieces_cover_the_whole(size: int, chunk: int) -> None:
    """Chunks lie end to end, none is empty or longer than asked; each has its own content."""
    chunks = pieces(size, chunk)
    assert [at for at, _ in chunks] == list(range(0, size, chunk))
    assert sum(length for _, length in chunks) == size
    assert all(0 < length <= chunk for _, length in chunks)
    assert len(pattern(1, chunk)) == chunk
    assert chunk < 8 or pattern(1, chunk) != pattern(2, chunk)
