"""The devices of a zone that were heard of lately, and what they are able to do: a table of bounded size.

It is what was seen, no decision: who reads the check-ins again has it again.
"""

from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from learning.sharing.policy import able
from schemas.messages import CheckIn, Registration
from schemas.modules import Profile
from schemas.sharing import ABILITIES, Abilities, Bounds, amounts
from schemas.topics import read
from schemas.wire import Malformed
from streams.processor import Record

MOST = 500_000
"""Devices that are remembered; of more, the tenth that was heard of longest ago is forgotten. About 200 bytes each."""
Able = npt.NDArray[np.bool_]


Said = TypeVar("Said", CheckIn, Registration, Profile)


def heard(record: Record, kind: type[Said]) -> Said:
    """What a device says in a record, under its own name. Raises `Malformed`."""
    message = read(record.topic, record.value, record.headers)
    assert isinstance(message, kind)
    if record.key != message.device:
        raise Malformed(f"the key is not the device's ({message.device})")
    return message


class Devices:
    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._row: dict[str, int] = {}
        self._names: list[str] = []
        self._heard = np.zeros(0, np.int64)
        self._table = np.zeros((0, len(ABILITIES)))

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, device: str) -> bool:
        return device in self._row

    @property
    def table(self) -> npt.NDArray[np.float64]:
        """Their abilities, float64 of shape (n, 5) in the order of `ABILITIES`."""
        return self._table[: len(self)]

    def hear(self, device: str, abilities: Abilities, at: int) -> bool:
        """A device checked in at `at` (ms); whether it was not known. What it said last holds, however late that lands."""
        i = self._row.get(device)
        new = i is None
        if i is None:
            i = self._add(device)
        if new or at >= self._heard[i]:
            self._heard[i] = at
            self._table[i] = amounts(abilities)
        return new

    def drop(self, device: str) -> bool:
        """It said goodbye; whether it was known."""
        row = self._row.pop(device, None)
        if row is None:
            return False
        last = self._names.pop()
        if last != device:  # it takes the place that is free
            self._names[row], self._row[last] = last, row
            self._heard[row], self._table[row] = self._heard[len(self)], self._table[len(self)]
        return True

    def forget(self, before: int) -> None:
        """Those that were not heard of since."""
        heard = self._heard[: len(self)]
        for device in [self._names[i] for i in np.flatnonzero(heard < before)]:
            self.drop(device)

    def able(self, needs: Bounds) -> Able:
        """Which of them meet these bounds, shape (n,)."""
        return able(self.table, needs)

    def below(self, needs: Bounds) -> dict[str, int]:
        """By bound, how many have less."""
        return {name: int((self.table[:, ABILITIES.index(name)] < least).sum()) for name, least in needs.items()}

    def _add(self, device: str) -> int:
        n = len(self)
        if n >= self.most:
            oldest = np.argpartition(self._heard[:n], n // 10)[: n // 10 + 1]
            for name in [self._names[i] for i in oldest]:
                self.drop(name)
            n = len(self)
        if n == len(self._heard):
            room = min(self.most, max(64, 2 * n)) - n
            self._heard = np.concatenate([self._heard, np.zeros(room, np.int64)])
            self._table = np.concatenate([self._table, np.zeros((room, len(ABILITIES)))])
        self._row[device] = n
        self._names.append(device)
        return n


def met_by_none(zones: Mapping[str, Devices], needs: Bounds) -> str:
    """Why no device seen in these zones can do a task with these needs, or "": also where none was seen yet."""
    seen = sum(map(len, zones.values()))
    if not seen or any(d.able(needs).any() for d in zones.values()):
        return ""
    nobody = {n: x for n, x in needs.items() if sum(d.below({n: x})[n] for d in zones.values()) == seen}
    which = " and ".join(f"{name} {least:g} or more" for name, least in (nobody or needs).items())
    which += "" if nobody else " at once"
    return f"none of the {seen:,} devices seen within a day in {', '.join(zones)} has {which}"
