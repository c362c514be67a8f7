"""Reading streams of unknown length."""

from typing import BinaryIO

PIECE_BYTES = 1 << 20


def read_at_most(stream: BinaryIO, most_bytes: int) -> bytes:
    """All of a stream, but no more than `most_bytes`.

    Takes memory for what is there, where stream.read(most_bytes) takes it for what might be.
    """
    pieces = []
    left = most_bytes
    while left and (piece := stream.read(min(left, PIECE_BYTES))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
