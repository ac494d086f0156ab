"""How short a version is as its difference from the one before, in real trainings; how fast that is made and read.

    python -m benchmarks.differences --seeds 3
    python -m benchmarks.differences --data hapt=FILE.npz

The trainings are those of `benchmarks.codecs` (20 rounds, 10 of 40 devices in each), with several server optimisers. Shares are of the
version's own bytes, over the whole model as one block: the mean of the rounds, and of the last five. `full` is the version itself,
its bytes in planes and packed likewise, without any other: what packing alone would save.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, stdev

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from benchmarks.codecs import NS, TASKS, ZONE, asked, best, seeded, trained
from benchmarks.line import Line
from device_sim.learner import prepare
from learning.differences import WORTH, difference, restore
from schemas.blocks import BLOCK
from schemas.facts import ZONE_FACTS, Finalised
from schemas.task import Server, TaskSpec
from schemas.topics import topic
from schemas.wire import decode
from streams.memory import Memory
from streams.models import assemble

Vector = npt.NDArray[np.float32]
SERVERS = (
    Server(), Server("fedavgm", learning_rate=0.3), Server("fedadam"), Server("fedyogi"), Server("fedadagrad"),
)  # fmt: skip
LAST = 5


@dataclass(frozen=True)
class Row:
    """One optimiser on one task. By seed: the mean share of all rounds, and of the last ones. `moved`: the step's norm over the model's,
    in the mean; `worth`: the share of versions that are written as differences."""

    task: str
    optimiser: str
    values: int
    share: tuple[float, ...]
    last: tuple[float, ...]
    full: float
    moved: float
    worth: float

    @property
    def edges(self) -> float:
        """More edges than this fetch fewer bytes than the differences add: s/(1 - s)."""
        return mean(self.share) / (1 - mean(self.share))


def versions(memory: Memory) -> Iterator[Vector]:
    """The zone's models, in order."""
    for r in memory.records(topic(NS, ZONE, "ledger").name):
        fact = decode(r.value, ZONE_FACTS)
        if isinstance(fact, Finalised) and fact.manifest:
            m = fact.manifest
            yield assemble(m, {p.key: memory.records(m.topic, p.partition)[p.offset].value or b"" for p in m.blocks})


def measured(spec: TaskSpec, seeds: int) -> Row:
    share, last, full, moved, worth = [], [], [], [], []
    for seed in range(seeds):
        start = prepare(seeded(spec, seed), seed)[1]
        models = [start, *versions(trained(seeded(spec, seed), seed))]
        shares = [len(difference(a, b)) / b.nbytes for a, b in pairwise(models)]
        share.append(mean(shares))
        last.append(mean(shares[-LAST:]))
        full += [len(difference(np.zeros_like(b), b)) / b.nbytes for b in models[1:]]
        moved += [float(np.linalg.norm(b - a) / np.linalg.norm(b)) for a, b in pairwise(models)]
        worth += [s <= WORTH for s in shares]
    return Row(
        spec.task, spec.server.optimiser, len(start), tuple(share), tuple(last), mean(full), mean(moved), mean(worth)
    )


def speed(step: float = 0.03) -> tuple[float, float]:
    """MB of model a second, made and read, of a block whose values moved by that share of their size; one thread."""
    dice = np.random.default_rng(0)
    base = (0.05 * dice.standard_normal(BLOCK)).astype(np.float32)
    new = base + (step * 0.05 * dice.standard_normal(BLOCK)).astype(np.float32)
    short = difference(base, new)
    return tuple(  # type: ignore[return-value]
        new.nbytes / best(once) / 1e6 for once in (lambda: difference(base, new), lambda: restore(base, short))
    )


def lines(rows: Iterable[Row]) -> Iterator[Line]:
    for r in rows:
        about = {
            "by_seed": [round(x, 4) for x in r.share],
            "last_rounds": round(mean(r.last), 4),
            "full_packed": round(r.full, 4),
            "moved": round(r.moved, 4),
            "written": round(r.worth, 4),
            "pays_above_edges": round(r.edges, 2),
            "values": r.values,
            "limit_is": "a version's own bytes",
        }
        yield Line("differences", f"task={r.task} server={r.optimiser}", mean(r.share), "share", 1.0, about)
    made, read = speed()
    yield Line("differences", "speed", made, "MB/s", read, {"limit_is": "reading them"})


def table(rows: Iterable[Row]) -> Iterator[str]:
    """As Markdown."""
    yield "| task | server optimiser | a step, of the model's norm | of the version's bytes | last five rounds | full, packed | pays above |"
    yield "|---|---|--:|--:|--:|--:|--:|"
    for r in rows:
        spread = stdev(r.share) if len(r.share) > 1 else 0.0
        yield (
            f"| {r.task}, {r.values:,} values | {r.optimiser} | {r.moved:.3f} | {mean(r.share):.3f} ± {spread:.3f} | "
            f"{mean(r.last):.3f} | {r.full:.3f} | {r.edges:.1f} edges |"
        )
    made, read = speed()
    yield f"\nMade at {made:,.0f} MB of model a second, read at {read:,.0f}, on one thread."


def main() -> None:
    args, tasks = asked(__doc__)
    rows = []
    for task in tasks:
        for server in SERVERS:
            print(f"{task}: {server.optimiser}", file=sys.stderr, flush=True)
            rows.append(measured(replace(TASKS[task], server=server), args.seeds))
    for text in (json.dumps(x.as_json()) for x in lines(rows)) if args.json else table(rows):
        print(text)


if __name__ == "__main__":
    main()
