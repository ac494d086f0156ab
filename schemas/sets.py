"""Sets of a model's blocks, as they travel: which blocks a device that trains a part of a model owes.

A set is a bitmap, one bit for each block of the model, the first block's the highest bit of the first byte; what is over in the last
byte is 0. `b""` is the set of all blocks.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import compress
from typing import Annotated

import msgspec

Set = Annotated[bytes, msgspec.Meta(max_length=1024)]
WHOLE = b""
"""All blocks of the model."""


def bitmap(blocks: Iterable[int], n: int) -> bytes:
    """The set of these blocks of a model of `n`. Raises `ValueError` for one that it does not have."""
    out = bytearray((n + 7) // 8)
    for b in blocks:
        if not 0 <= b < n:
            raise ValueError(f"the model has blocks 0 to {n - 1}, not {b}")
        out[b >> 3] |= 0x80 >> (b & 7)
    return bytes(out)


_BIT = bytes.maketrans(b"01", b"\x00\x01")


def chosen(blocks: bytes, of: Iterable[int]) -> Iterable[int]:
    """Of what is given for each block of the model, that of the blocks in the set."""
    if not blocks:
        return of
    bits = f"{int.from_bytes(blocks):0{8 * len(blocks)}b}".encode().translate(_BIT)  # no step in Python for each block
    return compress(of, bits)


@lru_cache(maxsize=256)
def members(blocks: bytes, n: int) -> tuple[int, ...]:
    """The blocks in a set, ascending, of a model of `n`."""
    return tuple(chosen(blocks, range(n)))


def has(blocks: bytes, block: int) -> bool:
    """Whether this block of the model is in the set."""
    return not blocks or bool(blocks[block >> 3] & (0x80 >> (block & 7)))


def size(blocks: bytes, n: int) -> int:
    """How many blocks are in a set, of a model of `n`."""
    return int.from_bytes(blocks).bit_count() if blocks else n


def flaw(blocks: bytes, n: int) -> str:
    """Why these bytes are no set of blocks of a model of `n`, or ""."""
    if not blocks:
        return ""
    if len(blocks) != (n + 7) // 8:
        return f"a set of the model's {n} blocks has {(n + 7) // 8} bytes, not {len(blocks)}"
    if blocks[-1] & (0xFF >> ((n - 1) % 8 + 1)):
        return f"it names blocks that the model does not have: the last one is {n - 1}"
    return "" if any(blocks) else "it is empty"
