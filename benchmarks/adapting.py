"""What it brings that devices fit a run to their speed (`device_sim/adapt.py`): who takes part, how long rounds take, what is learned.

    python -m benchmarks.adapting --seeds 3

A plane on the log in memory with a virtual clock; phones of all speeds (the default capacity) train the digits with torch. Rounds are
those of a tenant who has no time: they end after `HURRY` seconds. Three ways: slow phones stay away, since their runs do not end in time;
rounds wait for them; they do the part that they can. Prints a JSON line for each.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev
from typing import Any

from msgspec.structs import replace

from device_sim.capacity import Usual
from device_sim.device import Device
from device_sim.fleet import Fleet, Manner
from device_sim.learner import TorchLearner, prepare, scorer
from device_sim.pace import Phone
from processors.aggregator import Aggregator
from processors.globe import GlobalCoordinator
from processors.submitter import Submitter
from processors.zone import ZoneCoordinator
from schemas.facts import Admitted, Committed, Finalised
from schemas.task import Adapt, Epochs, Rounds, TaskSpec, Training
from schemas.topics import GLOBAL, topic, zone_topics
from streams.ledger import Globe, Ledger, Zone
from streams.memory import Memory
from streams.models import look_up

NS, ZONE, SHARDS, MS = "bench", "z", 4, 10**8
DEVICES, HURRY, PATIENT = 60, 30.0, 300.0
SPEC = TaskSpec(
    "digits", "mlp", "digits", model_args={"hidden": 64}, data_args={"devices": DEVICES, "alpha": 0.3},
    training=Training(5, 10, 0.1), rounds=Rounds(20, 1.3, 2, HURRY, 2 * HURRY), epochs=Epochs(1, 40, 10**6),
)  # fmt: skip
WAYS = {
    "stay away": SPEC,
    "waited for": replace(SPEC, rounds=Rounds(20, 1.3, 20, PATIENT, PATIENT)),
    "adapt": replace(SPEC, adapt=Adapt(most_s=0.8 * HURRY, steps_least=0.1)),
}


@dataclass
class Outcome:
    """Of one run. `part`: devices whose delta counted at least once; `slow`: of the slowest third of all, likewise; `deltas` counted;
    `lapsed`: slots without one. `seconds` of the virtual clock from the first round to the last."""

    accuracy: float
    part: int
    slow: int
    deltas: int
    lapsed: int
    rounds: int
    seconds: float


def run(way: str, seed: int) -> Outcome:
    """The task once, with phones, data, model and dice of this seed."""
    spec = WAYS[way]
    spec = replace(spec, data_args={**spec.data_args, "seed": seed})
    memory = Memory(seed=seed, latency=(1, 1), batch=1_000)
    for zone in (GLOBAL, ZONE):
        for t in zone_topics(NS, zone):
            memory.create(t.name, t.partitions(SHARDS))
    globe = memory.host(lambda life: GlobalCoordinator(NS, [ZONE], SHARDS, "global", life, 0))
    memory.host(lambda life: ZoneCoordinator(NS, ZONE, SHARDS, "zone", life, 0))
    memory.host(lambda life: Aggregator(NS, ZONE, "aggregator", life))
    capacity = Usual()
    phones = [Device(f"phone-{seed}-{i}", i) for i in range(DEVICES)]
    for d in phones:
        d.pace = Phone(capacity.of(seed, d.id))
    manner = Manner(seed=seed, together=1_000, ahead=True)
    fleet = memory.host(lambda life: Fleet(NS, ZONE, "fleet", life, phones, TorchLearner(), manner))
    shape, vector, _ = prepare(spec, seed)
    memory.host(lambda life: Submitter(NS, life, spec, shape, vector, seed))

    def ended() -> bool:
        return spec.task in globe.processor.globe.over  # type: ignore[attr-defined]

    if not memory.run(ended, MS):
        raise RuntimeError(f"{way}: the task did not end")
    state: Ledger[Globe] = Ledger(Globe())
    for r in memory.records(topic(NS, GLOBAL, "ledger").name):
        state.feed(r)
    kept = state.state.over[spec.task].model
    models = topic(NS, GLOBAL, "models").name
    model = look_up(kept, partial(memory.records, models))
    accuracy, _, _ = scorer()(spec, model)
    names = {fleet.processor._name(d, ZONE, spec.tenant): d for d in phones}  # type: ignore[attr-defined]
    return _told(memory, names, float(accuracy))


def _told(memory: Memory, names: dict[str, Device], accuracy: float) -> Outcome:
    """What the zone's ledger says."""
    by_speed = sorted(names.values(), key=lambda d: d.pace.capacity.training_ms)  # type: ignore[attr-defined]
    slowest = {d.number for d in by_speed[-len(by_speed) // 3 :]}
    zone: Ledger[Zone] = Ledger(Zone())
    slots: dict[tuple[int, int], int] = {}
    counted: list[int] = []
    times: list[int] = []
    rounds = 0
    for r in memory.records(topic(NS, ZONE, "ledger").name):
        fact, void = zone.feed(r)
        match fact:
            case Admitted() if not void:
                slots |= {(x.round, x.slot): names[x.device].number for x in fact.slots}
                times.append(r.timestamp)
            case Committed() if not void:
                counted += [slots[d.round, d.slot] for d in fact.done]
            case Finalised() if not void:
                rounds += fact.manifest is not None
                times.append(r.timestamp)
    part = set(counted)
    lapsed, seconds = len(slots) - len(counted), (times[-1] - times[0]) / 1000
    return Outcome(accuracy, len(part), len(part & slowest), len(counted), lapsed, rounds, seconds)


def main(seeds: int) -> Iterator[dict[str, Any]]:
    for way in WAYS:
        began = time.monotonic()
        runs = [run(way, seed) for seed in range(1, seeds + 1)]
        accuracies = [100 * o.accuracy for o in runs]
        yield {
            "bench": "adapting",
            "case": f"slow phones: {way}",
            "accuracy": round(mean(accuracies), 2),
            "accuracy_sd": round(stdev(accuracies), 2) if seeds > 1 else None,
            "devices": DEVICES,
            **{k: round(mean(getattr(o, k) for o in runs), 1) for k in ("part", "slow", "deltas", "lapsed", "rounds", "seconds")},
            "seeds": seeds,
            "took_s": round(time.monotonic() - began, 1),
        }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    for line in main(parser.parse_args().seeds):
        print(json.dumps(line), flush=True)
