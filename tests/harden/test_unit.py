"""systemd drop-ins: right for every kind of unit, checked by systemd itself."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ioflusher.cli.unit import verify
from ioflusher.harden import UNLIMITED, HardenError, IoClass, RealtimePolicy, Settings
from ioflusher.harden.unit import DROP_IN, drop_in, parse_service, read_service

PROGRAM = ["/usr/bin/ioflusher"]
PLAIN = (
    "[Unit]\nDescription=x\n[Service]\nExecStart=/usr/sbin/daemon -f\n[Install]\nWantedBy=multi-user.target\n"
)


def test_root_service() -> None:
    """A service that runs as root needs nothing but the wrapper."""
    text = drop_in(parse_service("d.service", [PLAIN]), PROGRAM, Settings())
    assert text.splitlines()[1:] == [
        "[Service]",
        "ExecStart=",
        "ExecStart=/usr/bin/ioflusher run -- /usr/sbin/daemon -f",
    ]


@pytest.mark.parametrize("line", ["User=iscsi", "DynamicUser=yes", "User=x\nDynamicUser=on"])
def test_service_with_a_user_borrows_the_capability(line: str) -> None:
    """It comes by the ambient set and is given up by the launcher."""
    service = parse_service("d.service", [PLAIN.replace("[Install]", f"{line}\n[Install]")])
    text = drop_in(service, PROGRAM, Settings())
    assert "AmbientCapabilities=CAP_SYS_RESOURCE\n" in text
    assert "run --drop-capability -- /usr/sbin/daemon" in text
    assert "CapabilityBoundingSet" not in text


def test_bounding_set_is_widened_only_where_there_is_one() -> None:
    """Naming one for a service without would take everything else away from it."""
    service = parse_service("d.service", [PLAIN, "[Service]\nCapabilityBoundingSet=CAP_NET_ADMIN\n"])
    assert "CapabilityBoundingSet=CAP_SYS_RESOURCE\n" in drop_in(service, PROGRAM, Settings())


def test_settings_use_what_systemd_has() -> None:
    """Limits and scheduling become systemd's own settings, not options of the launcher."""
    settings = Settings(
        memory_lock_limit=UNLIMITED,
        cgroup="storage.slice",
        oom_score_adj=-1000,
        policy=RealtimePolicy.RR,
        priority=5,
        nice=-3,
        io_class=IoClass.BEST_EFFORT,
        io_level=0,
    )
    text = drop_in(parse_service("d.service", [PLAIN]), PROGRAM, settings, require=False)
    assert text.splitlines()[2:-2] == [
        "LimitMEMLOCK=infinity",
        "Slice=storage.slice",
        "OOMScoreAdjust=-1000",
        "CPUSchedulingPolicy=rr",
        "CPUSchedulingPriority=5",
        "Nice=-3",
        "IOSchedulingClass=best-effort",
        "IOSchedulingPriority=0",
    ]
    assert "run --best-effort --" in text


def test_prefixes_continuations_and_overrides() -> None:
    """Prefixes stay in front, split lines are joined, an empty assignment takes earlier ones back."""
    unit = "[Service]\nExecStart=/bin/old\n"
    override = "[Service]\n# comment \\\nExecStart=\nExecStart=-!/bin/new %i \\\n  # inside\n  --a 'b c'\n"
    service = parse_service("d.service", [unit, override])
    (line,) = [x for x in drop_in(service, PROGRAM, Settings()).splitlines() if x.startswith("ExecStart=-")]
    assert line == "ExecStart=-!/usr/bin/ioflusher run -- /bin/new %i --a 'b c'"


def test_a_program_path_with_systemds_characters() -> None:
    """Percent and dollar in our own path are not for systemd to expand; blanks are quoted."""
    text = drop_in(parse_service("d.service", [PLAIN]), ["/opt/50% $x/ioflusher"], Settings())
    assert "ExecStart='/opt/50%% $$x/ioflusher' run -- /usr/sbin/daemon -f" in text


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("ExecStop=/bin/x\n", "has no ExecStart="),
        ("ExecStart=/bin/x\nPrivateUsers=yes\n", "user namespace"),
        ("ExecStart=@/bin/x y\n", "another name"),
        ("ExecStart=/bin/x ; /bin/y\n", "several commands"),
    ],
)
def test_what_cannot_be_wrapped_is_told(body: str, reason: str) -> None:
    """No drop-in is better than one that does not do what it says."""
    with pytest.raises(HardenError, match=reason):
        drop_in(parse_service("d.service", [f"[Service]\n{body}"]), PROGRAM, Settings())


def write(root: Path, path: str, text: str) -> None:
    """A unit file of a machine below `root`."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_units_are_found_where_systemd_looks(tmp_path: Path) -> None:
    """/etc wins over /usr, drop-ins apply by name, our own is passed over, templates serve instances."""
    write(tmp_path, "usr/lib/systemd/system/d@.service", "[Service]\nExecStart=/bin/vendor %i\n")
    write(tmp_path, "etc/systemd/system/d@.service", "[Service]\nExecStart=/bin/local %i\n")
    write(tmp_path, "usr/lib/systemd/system/d@.service.d/10-a.conf", "[Service]\nUser=vendor\n")
    write(tmp_path, "etc/systemd/system/d@a.service.d/10-a.conf", "[Service]\nUser=root\n")
    write(
        tmp_path,
        f"etc/systemd/system/d@a.service.d/{DROP_IN}",
        "[Service]\nExecStart=\nExecStart=/bin/ours\n",
    )
    service = read_service("d@a.service", root=tmp_path)
    assert service.commands == ("/bin/local %i",)
    assert service.as_root
    assert not read_service("d@b.service", root=tmp_path).as_root


@pytest.mark.parametrize("name", ["d", "../d.service", "d.socket", "d.service"])
def test_no_such_service(tmp_path: Path, name: str) -> None:
    """Wrong names and missing units are errors, with what was looked for."""
    with pytest.raises(HardenError):
        read_service(name, root=tmp_path)


@pytest.mark.live
@pytest.mark.needs("systemd-analyze")
def test_systemd_accepts_it_and_would_tell(tmp_path: Path) -> None:
    """systemd-analyze passes our drop-in for a unit of this machine, and complains of a broken one."""
    service = read_service("systemd-journald.service")
    good = drop_in(service, [shutil.which("true") or "/bin/true"], Settings(oom_score_adj=-900))
    assert verify(service, good, Path("/")) == []
    assert verify(service, good.replace("OOMScoreAdjust=-900", "OOMScoreAdjust=lots"), Path("/"))


def test_settings_that_contradict_each_other() -> None:
    """A priority without a policy, or a level without a class, is refused."""
    with pytest.raises(HardenError, match="go together"):
        Settings(priority=5)
    with pytest.raises(HardenError, match="needs the real-time or the best-effort"):
        Settings(io_class=IoClass.IDLE, io_level=3)


@pytest.mark.live
def test_the_verb_prints_and_installs(tmp_path: Path) -> None:
    """Printed by default; --install writes the same text below the root it was given."""
    write(tmp_path, "etc/systemd/system/d.service", PLAIN)
    run = [sys.executable, "-m", "ioflusher", "unit", "d.service", "--root", str(tmp_path), "--nice", "1"]
    printed = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "Nice=1\n" in printed
    subprocess.run([*run, "--install"], capture_output=True, timeout=60, check=True)
    assert (tmp_path / "etc/systemd/system/d.service.d" / DROP_IN).read_text() == printed
