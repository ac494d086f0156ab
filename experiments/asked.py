"""What an experiment is given: where to write, how often, on what data, and a simulation to run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from experiments.record import Runs
from streams.processor import Processor


class Cannot(ValueError):
    """What was asked for cannot be; the text says what to change."""


class Effort(Protocol):
    """What a task had cost its devices: runs, local steps, bytes down and up."""

    runs: int
    steps: int
    down_bytes: int
    up_bytes: int


class Epoch(Protocol):
    """What an epoch came to: accuracy and loss on held-out data, when it was merged (virtual ms), and the effort until then."""

    task: str
    epoch: int
    at: int
    accuracy: float | None
    loss: float | None

    @property
    def effort(self) -> Effort: ...


class Simulated(Protocol):
    """What a simulation came to, as `olearning simulate` says it."""

    updates: int
    bids: int
    rounds: int
    virtual_ms: int
    seconds: float
    why: dict[str, str]
    models: dict[str, str]

    @property
    def epochs(self) -> Sequence[Epoch]: ...


Simulate = Callable[[Mapping[str, Any], Sequence[Processor]], Simulated]
"""A scenario as its file would have it, and processors that watch -> what it came to. Raises `ValueError` in words."""


@dataclass(frozen=True)
class Asked:
    """What a person asked for: the experiment's `name`. `out` is the folder to write to, `data` one with the archives that `experiments/data.py` names, or
    None: the digits that come along. `quick`: small and once, to see that it works."""

    name: str
    out: Path
    runs: Runs
    simulate: Simulate
    say: Callable[[str], None]
    data: Path | None = None
    seeds: int = 3
    quick: bool = False
