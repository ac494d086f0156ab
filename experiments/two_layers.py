"""A run of the platform, two layers of learning, day by day: a day is an epoch, rounds in each zone and then the merge of the zones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.asked import Asked
from experiments.works import Work


@dataclass(frozen=True)
class Size:
    """Of a zone: devices, deltas a round, rounds a day; and how many days. The paper's: 1.3·K = 26 devices, K = 20, ten rounds."""

    devices: int = 26
    demand: int = 20
    rounds: int = 10
    days: int = 100


OPTIMISERS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "prox": ({"prox": 0.1}, {}),
    "yogi": ({}, {"optimiser": "pyramidfl-yogi"}),
    "yogi-globe": ({}, {"optimiser": "pyramidfl-yogi", "at": "globe"}),
}
"""PyramidFL's two, by what they say of a task's training and of its server; and the second in the globe instead of the zones."""


def task(work: Work, optimiser: str) -> dict[str, Any]:
    """What a task file would say of the work, without its rounds and epochs."""
    training, server = OPTIMISERS[optimiser]
    return {
        "task": work.name,
        "model": work.model,
        "model_args": dict(work.model_args),
        "data": work.data,
        "data_args": dict(work.data_args),
        "training": {**work.training, **training},
        "server": dict(server),
    }


def scenario(
    work: Work, size: Size, optimiser: str, zones: int, seed: int, stop: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The run as a scenario file would say it. Devices are always free: who is asked trains, and the `demand` fastest count."""
    rounds = {"demand": size.demand, "over_commit": size.devices / size.demand, "minimum": size.demand}
    return {
        "seed": seed,
        "zones": {f"z{i}": {"devices": size.devices} for i in range(1, zones + 1)},
        "devices": {"capacity": work.capacity},
        "clock": {"tick_ms": 500},
        "tasks": [
            task(work, optimiser)
            | {
                "rounds": rounds | {"deadline_s": 7200, "lease_s": 7200},
                "epochs": {"count": size.days, "rounds": size.rounds, "deadline_s": 0},
                "stop": dict(stop or {}),
            }
        ],
    }


def by_day(asked: Asked, tree: Mapping[str, Any]) -> dict[str, Any]:
    """The run: at the end of each day held-out accuracy and loss, and so far local steps, bytes, hours; and why it ended."""
    made = asked.simulate(tree, ())
    (why,) = made.why.values()
    days = [e for e in made.epochs if e.epoch]  # epoch 0 is the model before the first day
    return {
        "accuracy": [e.accuracy for e in days],
        "loss": [e.loss for e in days],
        "steps": [e.effort.steps for e in days],
        "bytes": [e.effort.down_bytes + e.effort.up_bytes for e in days],
        "hours": [round(e.at / 3.6e6, 3) for e in days],
        "why": why,
    }
