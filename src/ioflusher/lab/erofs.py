"""A read-only EROFS file system over files that stay where they are.

The guest must see this machine's own programs, on kernels that have no 9p and without root on this side.
So the lab writes the metadata of an EROFS image (superblock, inodes, directories) into memory and gives
each regular file a run of blocks; those blocks are read from the file itself when the guest asks for them.
Nothing is copied, and the image is as fresh as the directory walk that made it.

Source: fs/erofs/erofs_fs.h, Documentation/filesystems/erofs.rst (uncompressed layouts, Linux 5.4 and later).
"""

import errno
import os
import stat
import struct
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ioflusher.nbd.backends import Backend

BLOCK_BITS = 12
BLOCK = 1 << BLOCK_BITS
SLOT = 32  # a nid counts slots of 32 bytes from the first metadata block
INODE_SIZE = 64  # struct erofs_inode_extended
SUPERBLOCK_OFFSET = 1024
SUPER_MAGIC_V1 = 0xE0F5E1E2
META_BLKADDR = 1

# i_format: bit 0 says extended inode, bits 1 to 3 the data layout
FORMAT_EXTENDED_PLAIN = 1 | (0 << 1)  # EROFS_INODE_FLAT_PLAIN
FORMAT_EXTENDED_INLINE = 1 | (2 << 1)  # EROFS_INODE_FLAT_INLINE

_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sI")
_INODE = struct.Struct("<HHHHQIIIIQII16x")
_DIRENT = struct.Struct("<QHBB")

LARGEST_IMAGE = 1 << 44  # bytes: block numbers have 32 bits

_FILE_TYPES = {stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFLNK: 7}
_OPEN_FILES = 128


@dataclass(slots=True)
class ImageNode:
    """One file, directory or symbolic link that the image shall hold.

    Attributes:
        mode: st_mode, type and permissions.
        size: bytes of a regular file's content; unused for the others.
        mtime_ns: modification time, nanoseconds since 1970. Python trusts its byte code by it.
        source: where a regular file's content lies on this machine.
        target: what a symbolic link says.
        children: a directory's entries by name.
    """

    mode: int
    size: int = 0
    mtime_ns: int = 0
    uid: int = 0
    gid: int = 0
    source: bytes = b""
    target: bytes = b""
    children: dict[bytes, "ImageNode"] = field(default_factory=dict)
    # where the layout put it
    nid: int = 0
    block: int = 0


def _walk(root: ImageNode) -> Iterator[tuple[ImageNode, ImageNode]]:
    """Every (node, parent), the root first: its nid must fit into 16 bits."""
    pending = [(root, root)]
    while pending:
        node, parent = pending.pop()
        yield node, parent
        if stat.S_ISDIR(node.mode):
            pending.extend((child, node) for child in node.children.values())


def _blocks(size: int) -> int:
    return (size + BLOCK - 1) >> BLOCK_BITS


def _inline_length(node: ImageNode) -> int:
    """Bytes of a link's text or of a directory's entries, where they fit behind the inode; else 0."""
    if stat.S_ISDIR(node.mode):
        names = sum(map(len, node.children)) + len(b"...")
        length = names + _DIRENT.size * (len(node.children) + 2)
    else:
        length = len(node.target)
    return length if length <= BLOCK - INODE_SIZE else 0


def _directory_content(node: ImageNode, parent: ImageNode) -> bytes:
    """The directory's blocks: in each, entries first, then their names, all in byte order of the names."""
    entries = [(b".", node), (b"..", parent), *node.children.items()]
    entries.sort(key=lambda entry: entry[0])
    blocks: list[bytes] = []
    start = 0
    while start < len(entries):
        used = 0
        end = start
        while end < len(entries) and used + _DIRENT.size + len(entries[end][0]) <= BLOCK:
            used += _DIRENT.size + len(entries[end][0])
            end += 1
        group = entries[start:end]
        offset = _DIRENT.size * len(group)
        head = bytearray()
        for name, child in group:
            head += _DIRENT.pack(child.nid, offset, _FILE_TYPES[stat.S_IFMT(child.mode)], 0)
            offset += len(name)
        block = bytes(head) + b"".join(name for name, _ in group)
        # only the last block may be short: its end is the directory's size
        blocks.append(block if end == len(entries) else block.ljust(BLOCK, b"\0"))
        start = end
    return b"".join(blocks)


class Image(Backend):
    """The image of a tree, as a read-only NBD back end.

    Sizes and offsets are bytes. Reading never fails for a file that has vanished or become
    unreadable since: that is an OSError, which the server hands to the guest as an I/O error of that file.
    A file that shrank reads as zeros behind its end, as on any block device that lost data.
    """

    def __init__(self, root: ImageNode) -> None:
        self._starts: list[int] = []  # first block of each file, ascending
        self._files: list[ImageNode] = []
        self._fds: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()
        nodes = list(_walk(root))
        inode_bytes = self._place_inodes(nodes)
        self._metadata = self._serialize(nodes, META_BLKADDR + _blocks(inode_bytes), root)

    @staticmethod
    def _place_inodes(nodes: list[tuple[ImageNode, ImageNode]]) -> int:
        """Give each node its nid, with room behind it for an inline tail; returns the bytes used."""
        offset = 0
        for node, _ in nodes:
            length = INODE_SIZE + _inline_length(node)
            # an inline tail must not cross a block boundary
            if length > INODE_SIZE and (offset % BLOCK) + length > BLOCK:
                offset += -offset % BLOCK
            node.nid = offset // SLOT
            offset += length + (-length % INODE_SIZE)
        return offset

    def _serialize(
        self, nodes: list[tuple[ImageNode, ImageNode]], first_block: int, root: ImageNode
    ) -> bytes:
        """Metadata up to the first file block, and the block numbers of every file."""
        next_block = first_block
        contents: list[tuple[int, bytes]] = []  # byte offset in the image, what stands there
        inline: set[int] = set()
        for node, parent in nodes:
            if stat.S_ISREG(node.mode):
                continue
            content = _directory_content(node, parent) if stat.S_ISDIR(node.mode) else node.target
            node.size = len(content)
            if _inline_length(node):
                inline.add(node.nid)
                contents.append((META_BLKADDR * BLOCK + node.nid * SLOT + INODE_SIZE, content))
            else:
                node.block = next_block
                contents.append((next_block * BLOCK, content))
                next_block += _blocks(len(content))
        metadata = bytearray(next_block * BLOCK)
        for offset, content in contents:
            metadata[offset : offset + len(content)] = content
        for node, _ in nodes:
            if stat.S_ISREG(node.mode) and node.size:
                node.block = next_block
                self._starts.append(next_block)
                self._files.append(node)
                next_block += _blocks(node.size)
        for number, (node, _) in enumerate(nodes, start=1):
            self._pack_inode(metadata, node, number, node.nid in inline)
        self._pack_superblock(metadata, root, len(nodes), next_block)
        self._size = next_block * BLOCK
        return bytes(metadata)

    @staticmethod
    def _pack_inode(metadata: bytearray, node: ImageNode, number: int, inline: bool) -> None:
        offset = META_BLKADDR * BLOCK + node.nid * SLOT
        links = 2 + sum(stat.S_ISDIR(c.mode) for c in node.children.values()) if node.children else 1
        _INODE.pack_into(
            metadata,
            offset,
            FORMAT_EXTENDED_INLINE if inline else FORMAT_EXTENDED_PLAIN,
            0,  # i_xattr_icount
            node.mode,
            0,
            node.size,
            node.block,
            number,
            node.uid,
            node.gid,
            node.mtime_ns // 1_000_000_000,
            node.mtime_ns % 1_000_000_000,
            links,
        )

    @staticmethod
    def _pack_superblock(metadata: bytearray, root: ImageNode, inodes: int, blocks: int) -> None:
        _SUPERBLOCK.pack_into(
            metadata,
            SUPERBLOCK_OFFSET,
            SUPER_MAGIC_V1,
            0,  # checksum: feature_compat below does not announce one
            0,
            BLOCK_BITS,
            0,
            root.nid,
            inodes,
            root.mtime_ns // 1_000_000_000,
            0,
            blocks,
            META_BLKADDR,
            0,  # xattr_blkaddr
            b"\0" * 16,
            b"ioflusher-lab",
            0,  # feature_incompat
        )

    @property
    def size(self) -> int:
        """Bytes of the whole image."""
        return self._size

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill the view with the image's bytes from the offset; raises OSError for an unreadable file."""
        done = 0
        while done < len(view):
            position = offset + done
            rest = view[done:]
            if position < len(self._metadata):
                part = self._metadata[position : position + len(rest)]
                rest[: len(part)] = part
                done += len(part)
            else:
                done += self._read_file_part(position, rest)

    def _read_file_part(self, position: int, view: memoryview) -> int:
        """Read from the one file whose blocks hold the position; returns how many bytes are now right."""
        index = bisect_right(self._starts, position >> BLOCK_BITS) - 1
        node = self._files[index]
        start = self._starts[index] << BLOCK_BITS
        end = start + (_blocks(node.size) << BLOCK_BITS)
        wanted = min(len(view), end - position)
        with self._lock:  # guests read at once, and opening one file may close another
            got = os.preadv(self._fd(index), [view[:wanted]], position - start)
        view[got:wanted] = bytes(wanted - got)
        return wanted

    def _fd(self, index: int) -> int:
        fd = self._fds.pop(index, None)
        if fd is None:
            if len(self._fds) >= _OPEN_FILES:
                os.close(self._fds.popitem(last=False)[1])
            fd = os.open(self._files[index].source, os.O_RDONLY | os.O_CLOEXEC)
        self._fds[index] = fd
        return fd

    def close(self) -> None:
        """Close the files that were read."""
        while self._fds:
            os.close(self._fds.popitem()[1])


class PendingImage(Backend):
    """An image that a thread is still making: what is read before it is there waits for it.

    Its size is said before it is known, so it is the largest that an image can have; zeroes follow the image.

    Args:
        make: makes the image; called in a thread.

    Attributes:
        failure: what `make` raised.
    """

    size = LARGEST_IMAGE
    failure: BaseException | None = None

    def __init__(self, make: Callable[[], Image]) -> None:
        self._make = make
        self._made = threading.Event()
        self._lock = threading.Lock()
        self._closed = False
        self._image: Image | None = None
        # not waited for when closed: nobody waits for a walk through all directories after Ctrl-C
        threading.Thread(target=self._run, name="image", daemon=True).start()

    def _run(self) -> None:
        try:
            image = self._make()
            with self._lock:
                self._image = image
                if self._closed:
                    image.close()
        except BaseException as error:
            self.failure = error
        finally:
            self._made.set()

    def image(self) -> Image:
        """The image, once it is there.

        Raises:
            OSError: it could not be made, or was closed before.
        """
        self._made.wait()
        if self._image is None:
            raise OSError(errno.EIO, f"the image was not made: {self.failure}")
        return self._image

    def read_into(self, offset: int, view: memoryview) -> None:
        image = self.image()
        inside = max(0, min(len(view), image.size - offset))
        image.read_into(offset, view[:inside])
        view[inside:] = bytes(len(view) - inside)

    def interrupt(self) -> None:
        self._made.set()

    def close(self) -> None:
        """Close the files that were read."""
        with self._lock:
            self._closed = True
            if self._image is not None:
                self._image.close()
        self._made.set()
