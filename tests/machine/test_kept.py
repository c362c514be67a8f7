"""Files that are kept open: the same text as read anew, and the same figures."""

from pathlib import Path

from ioflusher.machine.collect.kept import KeptFile, KeptTree
from ioflusher.machine.collect.system import read_memory
from ioflusher.machine.collect.tree import Tree


def test_a_kept_file(tmp_path: Path) -> None:
    """The same descriptor, the text of now; one that comes late is found."""
    file = KeptFile(tmp_path / "x")
    assert file.read() is None
    (tmp_path / "x").write_text("one")
    assert file.read() == b"one"
    (tmp_path / "x").write_text("three")
    assert file.read() == b"three"
    file.close()


def test_a_kept_tree_has_the_figures_of_now(tmp_path: Path) -> None:
    """As a tree that opens everything anew; what is not there, or came later, is no error."""
    vm = tmp_path / "proc/sys/vm"
    vm.mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 400 kB\nMemFree: 100 kB\n")
    (vm / "dirty_bytes").write_text("4096\n")
    kept = KeptTree(tmp_path)
    for dirty in (4096, 8192):
        (vm / "dirty_bytes").write_text(f"{dirty}\n")
        memory = read_memory(kept)
        assert memory == read_memory(Tree(tmp_path, lambda path, why: None))
        assert (memory.total_kib, memory.dirty_bytes, memory.dirty_ratio) == (400, dirty, None)
    (vm / "dirty_ratio").write_text("20\n")
    assert read_memory(kept).dirty_ratio == 20
    assert kept.data("proc/meminfo", 8) == b"MemTotal"
    kept.close()
