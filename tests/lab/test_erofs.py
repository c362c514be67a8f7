"""The synthesized EROFS image says what the directories say; erofs-utils is the judge."""

import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ioflusher.lab.erofs import BLOCK, LARGEST_IMAGE, Image, ImageNode, PendingImage
from ioflusher.lab.tree import Graft, scan
from tests.needs import need


def image_of(directory: Path, hidden_root: Path) -> Image:
    """An image whose root shows nothing but `directory`, under its own path."""
    return Image(scan([directory], root=hidden_root))


def whole(image: Image) -> bytes:
    content = bytearray(image.size)
    image.read_into(0, memoryview(content))
    return bytes(content)


def listing(directory: Path) -> dict[str, tuple[int, bytes, int]]:
    """Relative path -> (type and mode, content or link, whole seconds of mtime)."""
    found = {}
    # not rglob, which older Pythons end at a link that is too long to follow
    names = (Path(top, name) for top, *lists in os.walk(directory) for name in (*lists[0], *lists[1]))
    for path in sorted(names):
        info = path.lstat()
        if path.is_symlink():
            content = os.fsencode(os.readlink(path))
        else:
            content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(directory))] = (info.st_mode, content, int(info.st_mtime))
    return found


@pytest.fixture
def strange_tree(tmp_path: Path) -> Path:
    """Names, sizes and links at the edges of the format."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for size in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 17):
        (tree / f"file{size}").write_bytes(os.urandom(size))
    (tree / "name with space, comma\tand tab").write_text("x")
    (tree / ("n" * 255)).write_text("longest name")
    (tree / os.fsdecode(b"not-utf8-\xff\xfe")).write_text("bytes")
    (tree / "empty").mkdir()
    many = tree / "many"
    many.mkdir()
    for number in range(700):
        (many / f"entry-{number:04}-{'x' * (number % 40)}").write_text(str(number))
    (tree / "short").symlink_to("file1")
    (tree / "dangling").symlink_to("/nowhere/at/all")
    (tree / "long").symlink_to("l" * 4090)
    (tree / "program").write_text("#!/bin/sh\n")
    (tree / "program").chmod(0o750)
    deep = tree
    for number in range(30):
        deep = deep / f"d{number}"
        deep.mkdir()
    os.utime(tree / "file1", (1_000_000_000, 1_234_567_890))
    return tree


@pytest.mark.live
def test_erofs_utils_extracts_what_was_there(strange_tree: Path, tmp_path: Path) -> None:
    """fsck.erofs finds no fault and extracts the same names, modes, contents, links and times."""
    fsck = need("fsck.erofs")
    empty = tmp_path / "empty-root"
    empty.mkdir()
    file = tmp_path / "image"
    image = image_of(strange_tree, empty)
    file.write_bytes(whole(image))
    image.close()
    target = tmp_path / "extracted"
    done = subprocess.run(
        [fsck, f"--extract={target}", "--force", "--preserve", str(file)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert listing(target / strange_tree.relative_to("/")) == listing(strange_tree)


def test_any_window_shows_the_same_bytes(strange_tree: Path, tmp_path: Path) -> None:
    """Reads of any offset and length are cuts of the whole image."""
    empty = tmp_path / "empty-root"
    empty.mkdir()
    image = image_of(strange_tree, empty)
    content = whole(image)
    for offset in range(0, image.size - 9000, 7919):
        view = bytearray(8999)
        image.read_into(offset, memoryview(view))
        assert bytes(view) == content[offset : offset + 8999]
    image.close()


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.binary(min_size=1, max_size=40).filter(lambda n: b"/" not in n and b"\0" not in n),
        st.integers(0, 300),
        max_size=200,
    )
)
def test_directory_entries_stand_in_byte_order(names: dict[bytes, int]) -> None:
    """The kernel looks names up by bisection, so each block's names ascend, and over blocks too."""
    root = ImageNode(mode=stat.S_IFDIR | 0o755)
    for name, size in names.items():
        if name not in (b".", b".."):
            root.children[name] = ImageNode(mode=stat.S_IFREG | 0o644, size=size)
    image = Image(root)
    content = bytearray(image.size if not any(names.values()) else len(image._metadata))
    image.read_into(0, memoryview(content))
    expected = sorted([b".", b"..", *root.children])
    found = []
    start = root.block * BLOCK if root.block else BLOCK + 64
    at = start
    while at < start + root.size:
        end = min(at + BLOCK, start + root.size)
        first = int.from_bytes(content[at + 8 : at + 10], "little")
        offsets = [
            int.from_bytes(content[at + 12 * i + 8 : at + 12 * i + 10], "little") for i in range(first // 12)
        ]
        for here, there in zip(offsets, [*offsets[1:], end - at], strict=True):
            found.append(bytes(content[at + here : at + there]).rstrip(b"\0"))
        at += BLOCK
    assert found == expected


def test_grafts_follow_links_inside_the_tree(tmp_path: Path) -> None:
    """A graft below /lib lands in usr/lib where /lib is a link, as on a merged-usr system."""
    root, modules = tmp_path / "root", tmp_path / "modules"
    (root / "usr" / "lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    modules.mkdir()
    (modules / "modules.dep").write_text("")
    tree = scan([], [Graft("/lib/modules/6.12", modules)], root=root)
    usr_lib = tree.children[b"usr"].children[b"lib"]
    assert b"modules.dep" in usr_lib.children[b"modules"].children[b"6.12"].children
    assert stat.S_ISLNK(tree.children[b"lib"].mode)


def test_a_file_that_shrank_reads_as_zeros(tmp_path: Path) -> None:
    """A guest that reads a file which has shrunk since the walk gets zeros, not another file's bytes."""
    tree, empty = tmp_path / "tree", tmp_path / "empty"
    tree.mkdir()
    empty.mkdir()
    (tree / "a").write_bytes(b"a" * 3 * BLOCK)
    image = image_of(tree, empty)
    (tree / "a").write_bytes(b"a")
    content = whole(image)
    assert content[-3 * BLOCK :] == b"a".ljust(3 * BLOCK, b"\0")
    image.close()


def test_a_vanished_file_is_an_error_of_that_file(tmp_path: Path) -> None:
    """What is gone since the walk raises OSError, which the server makes an I/O error."""
    tree, empty = tmp_path / "tree", tmp_path / "empty"
    tree.mkdir()
    empty.mkdir()
    (tree / "a").write_bytes(b"a" * BLOCK)
    image = image_of(tree, empty)
    (tree / "a").unlink()
    with pytest.raises(FileNotFoundError):
        image.read_into(image.size - BLOCK, memoryview(bytearray(BLOCK)))


def test_who_reads_an_image_that_is_not_made_yet_waits_for_it(tmp_path: Path) -> None:
    """What is read then is the image's, with zeroes behind its end up to the size that was said before."""
    tree, empty = tmp_path / "tree", tmp_path / "empty"
    tree.mkdir()
    empty.mkdir()
    (tree / "a").write_bytes(b"a" * BLOCK)
    go_on = threading.Event()

    def make() -> Image:
        assert go_on.wait(10)
        return image_of(tree, empty)

    image = PendingImage(make)
    assert image.size == LARGEST_IMAGE
    read: list[bytes] = []

    def reader() -> None:
        content = bytearray(b"x" * 4 * BLOCK)
        image.read_into(image.image().size - BLOCK, memoryview(content))
        read.append(bytes(content))

    thread = threading.Thread(target=reader)
    thread.start()
    thread.join(0.1)
    assert not read
    assert thread.is_alive()
    go_on.set()
    thread.join(10)
    assert read == [b"a" * BLOCK + bytes(3 * BLOCK)]
    image.read_into(LARGEST_IMAGE - BLOCK, memoryview(bytearray(BLOCK)))
    image.close()


def test_an_image_that_cannot_be_made_is_an_error_of_the_disk() -> None:
    """The reader gets an OSError, which the server makes an I/O error; the reason is there to be told."""

    def make() -> Image:
        raise OSError("too many symbolic links on the way to /a")

    image = PendingImage(make)
    with pytest.raises(OSError, match="too many symbolic links on the way to /a"):
        image.read_into(0, memoryview(bytearray(BLOCK)))
    assert "too many symbolic links" in str(image.failure)
    image.close()


def test_nobody_waits_for_an_image_that_was_given_up(tmp_path: Path) -> None:
    """After `interrupt`, as the server calls it when it closes, a reader fails; one made later is closed."""
    go_on, made = threading.Event(), threading.Event()
    (tmp_path / "empty").mkdir()

    def make() -> Image:
        assert go_on.wait(10)
        image = image_of(tmp_path / "empty", tmp_path / "empty")
        image.close = made.set  # type: ignore[method-assign]
        return image

    image = PendingImage(make)
    threading.Timer(0.1, image.interrupt).start()
    with pytest.raises(OSError, match="not made"):
        image.read_into(0, memoryview(bytearray(BLOCK)))
    image.close()
    go_on.set()
    assert made.wait(10)
