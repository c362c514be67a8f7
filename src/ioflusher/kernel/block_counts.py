"""Requests of a block device: /sys/block/NAME/stat (Documentation/block/stat.rst) and inflight."""


def parse_completed(stat: bytes) -> int:
    """Reads, writes, discards and flushes that completed since the device exists.

    Raises:
        ValueError: where the text is not such a line.
    """
    numbers = [int(word) for word in stat.split()]
    if len(numbers) < 11:
        raise ValueError(f"expected 11 numbers or more, found {stat[:80]!r}")
    # discards came with 4.18, flushes with 5.5
    return sum(numbers[index] for index in (0, 4, 11, 15) if index < len(numbers))


def parse_inflight(text: bytes) -> int:
    """Reads and writes that were issued and not completed (Documentation/ABI/stable/sysfs-block).

    Raises:
        ValueError: where the text is not two numbers.
    """
    numbers = [int(word) for word in text.split()]
    if len(numbers) != 2:
        raise ValueError(f"expected two numbers, found {text[:80]!r}")
    return sum(numbers)
