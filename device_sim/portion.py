"""A round as a device does it that trains a part of the model (ECLM §5): which blocks it fetches and trains, and whose change it sends.

What it takes is the announcement itself, as in `adapt.py`: `sizes` are those of its blocks, so that plan, pace, memory and upload go by
them. Pure.
"""

from collections.abc import Iterable
from typing import Any

from msgspec.structs import asdict

from schemas import sets
from schemas.messages import Announcement
from schemas.sets import Set


class Portion(Announcement, frozen=True, kw_only=True):
    """A round of which a device takes a part. `sizes` and `blocks` go together: the blocks that it fetches, ascending, by their numbers
    in the model, which has `whole`. `sent` are those of them that it owes: what it does not train, ECLM's selector say, it only
    fetches. `base` is the whole model's."""

    blocks: tuple[int, ...]
    sent: tuple[int, ...]
    whole: int
    name: str
    """Which blocks, in words: made once, for a model of many blocks is asked for at every look."""

    @property
    def owes(self) -> Set:
        """What it sends, as a set of the model's blocks."""
        return sets.bitmap(self.sent, self.whole)


def portion(a: Announcement, blocks: Iterable[int], sent: Iterable[int] | None = None) -> Portion:
    """The round for a device that takes these blocks, and owes those of them that are `sent` (None: all).

    Raises `ValueError` if the round takes whole models alone, or if there are no such blocks.
    """
    mine = tuple(sorted(set(blocks)))
    gives = mine if sent is None else tuple(sorted(set(sent)))
    n = len(a.sizes)
    if isinstance(a, Portion) or not a.partial:
        raise ValueError(f"round {a.round} of {a.task} cannot be cut: it is a part already, or rounds.partial is off")
    if not gives or not set(gives) <= set(mine) or not 0 <= mine[0] <= mine[-1] < n:
        raise ValueError(f"of blocks 0 to {n - 1} a part has {mine}, and sends {gives} of them: that cannot be")
    fields: dict[str, Any] = asdict(a) | {"sizes": tuple(a.sizes[b] for b in mine)}
    return Portion(**fields, blocks=mine, sent=gives, whole=n, name=",".join(map(str, mine)))


def blocks_of(a: Announcement) -> tuple[int, ...]:
    """The blocks that a device fetches for a round, by their numbers in the model; `a.sizes` are theirs."""
    return a.blocks if isinstance(a, Portion) else tuple(range(len(a.sizes)))


def whole(a: Announcement) -> int:
    """How many blocks the round's model has."""
    return a.whole if isinstance(a, Portion) else len(a.sizes)


def sent_sizes(a: Announcement) -> list[int]:
    """The sizes of the blocks that a device sends for a round."""
    if not isinstance(a, Portion):
        return list(a.sizes)
    gives = set(a.sent)
    return [n for b, n in zip(a.blocks, a.sizes, strict=True) if b in gives]


def owes(a: Announcement) -> Set:
    """The set of blocks that a device owes which takes this round."""
    return a.owes if isinstance(a, Portion) else sets.WHOLE
