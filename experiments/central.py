"""Federated training with one server and no zones, in virtual time: what the two-layer platform is compared with.

A round is as PyramidFL's code has it (github.com/liecn/PyramidFL `training/param_server.py`): demand × over-commit devices are
selected; those that are gone when they would have ended are dropped; of the others the `demand` fastest run, and the slowest of
these ends the round. The deltas weigh the same each, and the mean is over all that came, also for tensors that some dropped. A delta
is rounded and added as the platform does it (`learning/aggregation.py`), and the optimisers are the same, at this one level.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import msgspec
import numpy as np
import numpy.typing as npt

from device_sim.capacity import Capacity
from device_sim.data import Dataset, share
from device_sim.engine import Engine
from device_sim.learner import prepare, scorer
from device_sim.pseudonym import seed_of, throw
from device_sim.trainer import Job, Run
from experiments.peers import Devices, Heard, Peer, selector
from learning import pyramidfl
from learning.aggregation import add, quantise
from learning.optimisers import apply_sums, first_state
from schemas.blocks import STATISTICS, Layout, slices
from schemas.task import YEAR, TaskSpec

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Free = Callable[[int, float], bool]
"""Whether a device is free at a time, in seconds."""

WAIT_S = 60.0
"""While nobody is free, the server looks again after this."""


@dataclass
class Round:
    """A round that was done, from 1 on, and at what time it ended, in seconds.

    Accuracy and loss are of the model then, on held-out data, or None where it was not scored. What all rounds cost so far is said as
    a simulation says it (`olearning/effort.py`): runs, their steps and models fetched are of all selected, though only what
    counts is trained here; bytes up are of the deltas that counted, without the tensors that were dropped.
    """

    number: int
    at_s: float
    selected: list[int]
    counted: list[int]
    model: Float32
    accuracy: float | None = None
    loss: float | None = None
    runs: int = 0
    steps: int = 0
    down_bytes: int = 0
    up_bytes: int = 0


@dataclass(frozen=True)
class Course:
    """How the rounds go. `drop_out`: the chance that a selected device is lost; `free`: None, always; a model is scored after each
    `score_every` rounds. `transfer_kbit`: a model's way to the device and back; None: what this model has, as float32."""

    peer: Peer = field(default_factory=Peer)
    drop_out: float = 0.0
    free: Free | None = None
    score_every: int = 1
    transfer_kbit: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.drop_out <= 1:
            raise ValueError(f"drop_out is a chance from 0 to 1, not {self.drop_out}")
        if self.score_every < 1:
            raise ValueError(f"score_every is 1 round or more, not {self.score_every}")
        if self.transfer_kbit is not None and not 0 < self.transfer_kbit < math.inf:
            raise ValueError(f"transfer_kbit is a number above 0, not {self.transfer_kbit}")


def rounds(spec: TaskSpec, course: Course, speeds: Sequence[Capacity], engine: Engine, seed: int) -> Iterator[Round]:
    """Round after round, without an end; the same bits for the same arguments.

    Of `spec` counts all but what is of zones and epochs; device i has share i of the data and `speeds[i]`. Raises `ValueError` for
    what cannot be, and what a run raises.
    """
    return _Server(spec, course, speeds, engine, seed).rounds()


def known(spec: TaskSpec, course: Course, speeds: Sequence[Capacity], dataset: Dataset, values: int) -> Devices:
    """What the server knows of its devices: a step takes 3 × the batch × the time of inference, also if a device has less data."""
    samples = [len(share(dataset, i, spec.data_args)[1]) for i in range(len(speeds))]
    steps = [spec.training.taken(n) for n in samples]
    kbit = 2 * 32 * values / 1000 if course.transfer_kbit is None else course.transfer_kbit
    return Devices(
        samples=samples,
        batches=[-(-n // spec.training.batch) for n in samples],
        steps=steps,
        training_s=np.array(
            [spec.training.batch * k * s.training_ms / 1000 for k, s in zip(steps, speeds, strict=True)]
        ),
        transfer_s=np.array([kbit / s.kbit_s for s in speeds]),
    )


class _Server:
    def __init__(self, spec: TaskSpec, course: Course, speeds: Sequence[Capacity], engine: Engine, seed: int):
        if not speeds:
            raise ValueError("a server needs devices: name the speed of one at least")
        self.spec, self.course, self.engine, self.seed = spec, course, engine, seed
        self.layout, self.model, dataset = prepare(spec, seed)
        if dataset is None:
            raise ValueError(f"model {spec.model} brings a client of its own, which only the platform can run")
        self.dataset = dataset
        self.devices = known(spec, course, speeds, dataset, self.model.size)
        dice = np.random.default_rng(seed_of(seed, "selector"))
        self.selector = selector(course.peer, self.devices, spec.training.batch, dice)
        self.state = first_state(spec.server, self.model.size)

    def rounds(self) -> Iterator[Round]:
        score, last = scorer(), Round(0, 0.0, [], [], self.model)
        for now in count(1):
            last = self.round(now, last)
            if now % self.course.score_every == 0:
                last.accuracy, last.loss, _ = score(self.spec, self.model)
            yield last

    def round(self, now: int, before: Round) -> Round:
        """The round after that one; it is not scored."""
        at, feasible = self._free(before.at_s)
        selected, times = self.selector.select(self.spec.rounds.places, now, feasible), self.devices.times
        came = sorted((i for i in selected if self._stays(i, now, at)), key=lambda i: (times[i], i))
        seconds, steps, heard, sent = float(times[selected].max()), dict[int, int](), dict[int, Heard](), 0
        if running := came[: self.spec.rounds.demand]:
            plan = self.selector.plan(running, self.spec.rounds.demand)
            seconds, steps = plan.seconds, dict(zip(running, plan.steps, strict=True))
            heard, sent = self._train(now, steps, dict(zip(running, plan.ratios.tolist(), strict=True)))
        self.selector.report(now, heard, [i for i in selected if i not in heard])
        return Round(
            number=now,
            at_s=at + seconds,
            selected=selected,
            counted=list(heard),
            model=self.model,
            runs=before.runs + len(selected),
            steps=before.steps + sum(steps.get(i, self.devices.steps[i]) for i in selected),
            down_bytes=before.down_bytes + 4 * self.model.size * len(selected),
            up_bytes=before.up_bytes + 4 * sent,
        )

    def _free(self, at_s: float) -> tuple[float, list[int]]:
        """From that time on when somebody is free, and who."""
        everybody, free, at = list(range(len(self.devices.samples))), self.course.free, at_s
        if free is None:
            return at, everybody
        while at < at_s + YEAR:
            if some := [i for i in everybody if free(i, at)]:
                return at, some
            at += WAIT_S
        raise ValueError(f"no device is free for a year from {at_s:.0f} s on")

    def _stays(self, i: int, now: int, at: float) -> bool:
        """Whether the device is there still when its round ends."""
        if throw(self.seed, "drop-out", now, i) < self.course.drop_out:
            return False
        return self.course.free is None or self.course.free(i, at + float(self.devices.times[i]))

    def _train(self, now: int, steps: Mapping[int, int], ratios: Mapping[int, float]) -> tuple[dict[int, Heard], int]:
        """Train these devices and take the step that their deltas make: what was heard of each, and how many values were sent."""
        jobs = [self._job(now, i, k) for i, k in steps.items()]
        total, heard, sent = np.zeros(self.model.size, np.int64), {}, 0
        for i, run in zip(steps, self.engine.runs(jobs), strict=True):
            if isinstance(run, Exception):
                raise run
            mask = self._kept(now, i, ratios[i])
            if self._added(run, delta := np.where(mask, run.delta, np.float32(0)), total):
                own = slice(_parameters(self.layout))
                heard[i] = Heard(run, delta[own], self.model[own])
                sent += int(np.count_nonzero(mask))
        if heard:
            sizes, unit = self.layout.sizes, self.spec.limits.unit
            weights = [len(heard)] * len(sizes)
            server, plain = self.spec.server, self.layout.plain
            self.model, self.state = apply_sums(
                server, self.model, total, weights, sizes, unit, self.state, plain=plain
            )
        return heard, sent

    def _job(self, now: int, i: int, steps: int) -> Job:
        x, y = share(self.dataset, i, self.spec.data_args)
        training = self.spec.training
        if steps != self.devices.steps[i]:
            training = msgspec.structs.replace(training, steps=steps)
        seed = seed_of(self.seed, "run", now, i)
        return Job(self.spec.model, self.spec.model_args, self.model, x, y, training, seed)

    def _kept(self, now: int, i: int, ratio: float) -> Mask:
        """Which values of a delta are sent, (n,). BatchNorm's statistics always are."""
        sizes = [t.size for t in self.layout.tensors if t.group != STATISTICS]
        dice = np.random.default_rng(seed_of(self.seed, "dropout", now, i))
        mask = np.ones(self.model.size, np.bool_)
        mask[: sum(sizes)] = pyramidfl.kept(sizes, ratio, dice)
        return mask

    def _added(self, run: Run, delta: Float32, total: npt.NDArray[np.int64]) -> bool:
        """Add a delta (n,) to the total, unless its training diverged, which the platform refuses too."""
        limits, pieces = self.spec.limits, slices(self.layout.sizes)
        if not np.isfinite(run.losses).all():
            return False
        try:
            rounded = [quantise(delta[p], limits.unit, limits.largest) for p in pieces]
        except ValueError:
            return False
        for piece, (q, exponent) in zip(pieces, rounded, strict=True):
            add(total[piece], q, exponent)
        return True


def _parameters(layout: Layout) -> int:
    """How many values of the model are parameters; they come first."""
    return sum(t.size for t in layout.tensors if t.group != STATISTICS)
