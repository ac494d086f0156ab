"""A new version on its way to its topic: the model and, where the server's optimiser has a state, that beside it."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from learning.optimisers import state_sizes
from schemas.blocks import Manifest
from schemas.task import Server
from schemas.topics import topic
from streams.models import Writing
from streams.processor import Requests, Send

Vector = npt.NDArray[np.float32]
MODEL, STATE = "block", "state block"
"""What is written: the first word of what its appends mean."""


class Version:
    """Version `n` of a task in a scope of `partitions`. `where` must never have been used before: the leader's token and a count.
    `state`: the optimiser's, of no values if it has none. `differences`: as `streams.models.Writing` takes them."""

    def __init__(
        self,
        scope: tuple[str, str],
        partitions: int,
        task: str,
        n: int,
        where: str,
        model: Vector,
        sizes: Sequence[int],
        state: Vector,
        server: Server,
        differences: Mapping[int, tuple[int, bytes]],
    ):
        to = topic(*scope, "models")
        self.task, self.n = task, n
        self._writing = {MODEL: Writing(to, partitions, task, n, where, model, sizes, differences)}
        if state.size:
            pieces = state_sizes(server, model.size)
            self._writing[STATE] = Writing(to, partitions, task, n, f"{where}/optimiser", state, pieces)
        self._missing = set(self._writing)

    def sends(self, requests: Requests) -> Iterator[Send]:
        """The appends; each answer's meaning is (`MODEL` or `STATE`, task, n, key)."""
        for what, writing in self._writing.items():
            yield from writing.sends(requests, what, self.task, self.n)

    def stored(self, what: str, key: str, place: tuple[int, int]) -> bool:
        """Note where a block lies; True when all of it is there."""
        if self._writing[what].stored(key, place):
            self._missing.discard(what)
        return not self._missing

    @property
    def manifest(self) -> Manifest:
        return self._writing[MODEL].manifest

    @property
    def optimiser(self) -> Manifest | None:
        return self._writing[STATE].manifest if STATE in self._writing else None
