"""How many trainings a second each way of doing them gives: what `device_sim/engine.py` chooses by.

An update is one device's: 5 batches of 16 samples, one pass. The ways: "here", a loop over the devices with torch's autograd on one
thread (the peer of the others); "stacked", their weights in one (`device_sim/batched.py`) on all cores; "workers", processes
(`device_sim/workers.py`) that have started before. The limit is arithmetic: an update's floating-point operations, at the rate at
which torch multiplies two large matrices on a core, for each of them.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from benchmarks.line import Line
from device_sim.batched import widths
from device_sim.engine import HERE, STACKED, WORKERS, Engine
from device_sim.trainer import Job, one_thread
from learning.models import build, model, to_vector
from schemas.task import Training
from schemas.wire import Scalar

BATCHES, BATCH = 5, 16
SGD, ADAMW = Training(1, BATCH, 0.01), Training(1, BATCH, 1e-3, optimiser="adamw")


SPOKEN: dict[str, Scalar] = {"shape": "1,32,32", "channels": "16,32", "kernel": 3, "hidden": 64, "classes": 20}
"""The small CNN for spoken words: two convolutions and a hidden layer, 137,236 parameters."""


@model("plain-cnn")
def channels_first() -> nn.Module:
    """The same as torch lays it in memory by itself."""
    return build("cnn", SPOKEN, 0).to(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class Case:
    """A model, how it is trained, and for how many devices at once."""

    name: str
    model: str
    args: dict[str, Scalar]
    shape: tuple[int, ...]
    """Of a sample."""
    classes: int
    training: Training = SGD
    devices: tuple[int, ...] = (1, 20, 100)

    def jobs(self, devices: int) -> list[Job]:
        """Devices with samples of their own, and one base."""
        base, dice, m = to_vector(build(self.model, self.args, 0)), np.random.default_rng(0), BATCHES * BATCH
        return [
            Job(
                self.model, self.args, base, dice.random((m, *self.shape), np.float32), dice.integers(0, self.classes, m),
                self.training, seed,
            )
            for seed in range(devices)
        ]  # fmt: skip


def mlp(
    inputs: int, hidden: int | str, classes: int, training: Training = SGD, devices: tuple[int, ...] = (1, 20, 100)
) -> Case:
    args: dict[str, Scalar] = {"inputs": inputs, "hidden": hidden, "classes": classes}
    name = f"{inputs}-{hidden}-{classes}".replace(",", "-")
    return Case(name, "mlp", args, (inputs,), classes, training, devices)


CASES = (
    mlp(64, 64, 10, devices=(1, 20, 100, 1000)),
    mlp(369, 64, 6, devices=(1, 20, 100, 1000)),
    mlp(768, 300, 6),
    mlp(768, 300, 6, ADAMW),
    mlp(784, "1200,200", 10, devices=(1, 20)),
    Case("cnn", "cnn", SPOKEN, (1, 32, 32), 20, devices=(20,)),
    Case("cnn-channels-first", "plain-cnn", {}, (1, 32, 32), 20, devices=(20,)),
    Case("resnet8", "resnet8", {}, (3, 32, 32), 10, devices=(20,)),
)
QUICK = (
    mlp(8, 4, 3, devices=(1, 3)),
    Case("cnn-channels-first", "plain-cnn", {}, (1, 32, 32), 20, devices=(2,)),
)


def run(cases: tuple[Case, ...] = CASES, seconds: float = 2.0) -> Iterator[Line]:
    """Each case in each way that can do it, for some `seconds` each: the best time counts."""
    cores = os.cpu_count() or 1
    rate = multiplications(cores, min(seconds, 1.0))
    with Engine(cores) as engine:
        for case in cases:
            yield from lines(engine, case, rate, seconds)


def lines(engine: Engine, case: Case, rate: float, seconds: float) -> Iterator[Line]:
    alone = case.jobs(20)
    settings = {"cores": engine.cores, "parameters": len(alone[0].base), "gflops": round(rate / 1e9, 1)}
    limit, name = rate / operations(alone[0]), f"model={case.name} optimiser={case.training.optimiser}"
    loop, cpu = measured(engine, HERE, alone, seconds)  # each device takes its time, however many there are
    yield Line("engine", f"way={HERE} {name}", loop, "updates/s", limit, settings | {"a_cpu_second": cpu})
    for devices in case.devices:
        jobs = case.jobs(devices)
        ways = [STACKED] * bool(widths(jobs[0])) + [WORKERS] * (devices > 1)  # processes have nothing to share of one
        for way in ways:
            found, cpu = measured(engine, way, jobs, seconds)
            about = settings | ({"a_cpu_second": cpu} if way == STACKED else {})  # of workers it is not known
            yield Line("engine", f"way={way} {name} devices={devices}", found, "updates/s", limit, about, HERE, loop)


def table(lines: Iterable[Line]) -> Iterator[str]:
    """As Markdown, in updates a second, and in brackets a second of this process on a core."""
    yield "| model | devices | loop | stacked | workers | limit | best / limit |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    rows: dict[tuple[str, str], dict[str, Line]] = {}
    loop = None
    for line in lines:
        at = dict(x.split("=") for x in line.case.split())
        if at["way"] == HERE:
            loop = line
            continue
        name = at["model"] + (" AdamW" if at["optimiser"] == "adamw" else "")
        rows.setdefault((name, at["devices"]), {HERE: loop} if loop else {})[at["way"]] = line
    for (name, devices), row in rows.items():
        limit, best = row[HERE].limit, max(line.value for line in row.values())
        cells = " | ".join(_cell(row.get(way)) for way in (HERE, STACKED, WORKERS))
        yield f"| {name} | {devices} | {cells} | {limit:,.0f} | {best / limit:.2f} |"


def _cell(line: Line | None) -> str:
    if not line:
        return ""
    cpu = line.settings.get("a_cpu_second")
    return f"{line.value:,.0f}" + (f" ({cpu:,})" if cpu else "")


def measured(engine: Engine, way: str, jobs: list[Job], seconds: float) -> tuple[float, int]:
    """Updates a second, and a second of this process on a core: it matters where others are at work on the machine."""
    wall, cpu = best(lambda: whole(engine.by(way, jobs)), seconds)
    return len(jobs) / wall, round(len(jobs) / cpu)


def whole(runs: list) -> None:
    """Raise what went wrong, if something did: a failure is not measured."""
    for x in runs:
        if isinstance(x, Exception):
            raise x


def best(once: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Seconds, and seconds on a core, that a call takes: the least of those that begin within `seconds`, two or more, after a first."""
    once()
    taken: list[tuple[float, float]] = []
    began = time.perf_counter()
    while len(taken) < 2 or time.perf_counter() - began < seconds:
        at, cpu = time.perf_counter(), time.process_time()
        once()
        taken.append((time.perf_counter() - at, time.process_time() - cpu))
    return min(t for t, _ in taken), max(1e-9, min(t for _, t in taken))


def operations(job: Job) -> int:
    """Floating-point operations of a pass's matrix products and convolutions: of each layer forward, for the gradient of its weights,
    and but for the first for that of its input."""
    products: list[int] = []

    def count(layer: nn.Module, given: object, out: torch.Tensor) -> None:
        products.append(out.numel() * layer.weight[0].numel())

    module = build(job.model, job.args, 0)
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_hook(count)
    module(torch.tensor(job.x))
    return 6 * sum(products) - 2 * products[0]


def multiplications(cores: int, seconds: float) -> float:
    """Floating-point operations a second at which torch multiplies two matrices of 1024 × 1024 on one core, at best, times the cores."""
    one_thread()
    a = torch.ones(1024, 1024)
    return cores * 2 * 1024**3 / best(lambda: torch.mm(a, a), seconds)[0]
