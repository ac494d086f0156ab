"""Accuracy by day: OLearning's Figs. 5 and 6 (§7.1), two layers of learning beside one.

1 to 4 zones of 1.3·K = 26 devices, K = 20. A day of OLearning is an epoch: ten rounds of K devices in each zone, then the merge. A day of
PyramidFL, Oort and random choice is a round of |Z|·K of the same devices. In both it ends when the globe has its weights. So a day is
ten times as many rounds for the one as for the other; local steps and bytes over the air are drawn beside days.

`har` and `speech` are the paper's two sets by their stand-ins, `features` the first with a smaller network, `resnet` the second with a
larger one, `large` is our own: as many devices as the platform is for.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import islice
from typing import Any

import msgspec

from device_sim.capacity import Capacity
from device_sim.engine import Engine
from device_sim.pace import Phone
from device_sim.population import Population
from experiments import works
from experiments.asked import Asked
from experiments.central import Course, rounds
from experiments.day_pictures import Line, picture, table
from experiments.peers import OORT, PYRAMIDFL, PYRAMIDFL_CODE, RANDOM, Peer
from experiments.two_layers import Size, by_day, scenario, task
from experiments.works import Work
from schemas.task import parse

OLEARNING = "olearning"


def lines(zones: Sequence[int]) -> list[Line]:
    """The paper's four for each number of zones; for the last our further ones."""
    out = [Line(m, o, z) for z in zones for o in ("prox", "yogi") for m in (OLEARNING, PYRAMIDFL)]
    out += [Line(m, o, zones[-1]) for o in ("prox", "yogi") for m in (OORT, RANDOM, PYRAMIDFL_CODE)]
    return [*out, Line(OLEARNING, "yogi-globe", zones[-1])]


Make = Callable[[Asked], AbstractContextManager[Work]]


def har(asked: Asked) -> None:
    """Fig. 6 on HAPT's raw windows."""
    _run(asked, works.har, Size(), (1, 2, 3, 4))


def features(asked: Asked) -> None:
    """Fig. 6 on HAPT's features."""
    _run(asked, works.features, Size(), (1, 2, 3, 4))


def speech(asked: Asked) -> None:
    """Fig. 5 on spoken words."""
    _run(asked, works.speech, Size(), (1, 2, 3, 4))


def resnet(asked: Asked) -> None:
    """The same with ResNet-8, where there are four zones."""
    _run(asked, works.resnet, Size(), (4,))


def large(asked: Asked) -> None:
    """1,300 devices a zone, of which 1,000 count."""
    size = Size(devices=1300, demand=1000, days=10)
    _run(
        asked,
        lambda asked: works.features(asked, 4 * size.devices),
        size,
        (4,),
        [Line(OLEARNING, o, 4) for o in ("prox", "yogi")] + [Line(PYRAMIDFL, o, 4) for o in ("prox", "yogi")],
    )


def _run(asked: Asked, make: Make, size: Size, zones: Sequence[int], some: Sequence[Line] = ()) -> None:
    if asked.quick:
        size, zones, make = Size(devices=4, demand=3, rounds=2, days=3), (1, 2), works.digits
    some = some or lines(zones)
    done: dict[tuple[Line, int], dict[str, Any]] = {}
    with make(asked) as work, Engine() as engine:
        for seed in range(1, asked.seeds + 1):
            for line in some:
                settings = {"work": work.name, "seed": seed} | msgspec.to_builtins(line) | msgspec.to_builtins(size)
                asked.say(f"{work.name}, seed {seed}: {line.method}, {line.optimiser}, {line.zones} zones")
                go: Callable[[], dict[str, Any]]
                if line.method == OLEARNING:
                    go = partial(by_day, asked, scenario(work, size, line.optimiser, line.zones, seed))
                else:
                    go = partial(one_layer, work, size, line, engine, seed)
                done[line, seed] = asked.runs.of(settings, go)
            picture(done, asked.out / asked.name)  # as far as it is
    (asked.out / "table.md").write_text(table(done, work.name))


def one_layer(work: Work, size: Size, line: Line, engine: Engine, seed: int) -> dict[str, Any]:
    """A peer's run, day by day, as `two_layers.by_day` says the platform's."""
    demand = line.zones * size.demand
    spec = parse(
        task(work, line.optimiser)
        | {"rounds": {"demand": demand, "over_commit": size.devices / size.demand, "minimum": demand}}
    )
    course = Course(Peer(line.method, work.selection, work.pyramid))
    out: dict[str, list[Any]] = {name: [] for name in ("accuracy", "loss", "steps", "bytes", "hours")}
    for r in islice(rounds(spec, course, speeds(work, size, line.zones, seed), engine, seed), size.days):
        out["accuracy"].append(r.accuracy)
        out["loss"].append(r.loss)
        out["steps"].append(r.steps)
        out["bytes"].append(r.down_bytes + r.up_bytes)
        out["hours"].append(round(r.at_s / 3600, 3))
    return out


def speeds(work: Work, size: Size, zones: int, seed: int) -> list[Capacity]:
    """Of the devices of so many zones, in their order: the ones that they have on the platform."""
    n = size.devices
    there = [Population(f"z{z}", n, (z - 1) * n, capacity=work.capacity, seed=seed) for z in range(1, zones + 1)]
    paces = [d.pace for zone in there for d in zone.devices()]
    assert all(isinstance(p, Phone) for p in paces)
    return [p.capacity for p in paces if isinstance(p, Phone)]
