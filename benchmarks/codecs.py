"""What each codec costs: accuracy lost in a real training, bytes of a delta, and how fast it is written, read and added.

    python -m benchmarks.codecs --seeds 5
    python -m benchmarks.codecs --data hapt=FILE.npz --data mnist=FILE.npz

The training goes through a whole plane on the log in memory, with a virtual clock: devices that train with torch, aggregators, a
coordinator. `+zstd` changes no value, so its accuracy is that of the codec it packs; its bytes are those of the same blocks,
packed. Speeds are of one block of 65,536 values of a real delta, on one thread; adding begins at a record's bytes.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from statistics import mean, stdev
from typing import Any

import numpy as np
from msgspec.structs import replace

from benchmarks.limits import widening_add_rate
from benchmarks.line import Line
from device_sim.data import Dataset, data, load, share
from device_sim.device import Device
from device_sim.fleet import Fleet, Manner
from device_sim.learner import TorchLearner, prepare, scorer
from device_sim.trainer import train
from learning.aggregation import within
from learning.codecs import pack, read_values, write_values
from learning.models import build, to_vector
from processors.aggregator import Aggregator
from processors.globe import GlobalCoordinator
from processors.submitter import Submitter
from processors.zone import ZoneCoordinator
from schemas.blocks import BLOCK, CODECS, DeltaBlock, codec
from schemas.task import KEEP, Epochs, Limits, Rounds, TaskSpec, Training, Upload
from schemas.topics import GLOBAL, topic, zone_topics
from schemas.wire import decode, encode
from streams.ledger import Globe, Ledger
from streams.memory import Memory
from streams.models import look_up

NS, ZONE, SHARDS, MS = "bench", "z", 4, 10**7
LIMITS = Limits()
TASKS: dict[str, TaskSpec] = {
    "digits": TaskSpec(
        "digits", "mlp", "digits", model_args={"hidden": 64}, data_args={"devices": 40},
        training=Training(5, 10, 0.2), rounds=Rounds(10, 1.0, 10), epochs=Epochs(1, 20, 10**6),
    ),
    "hapt": TaskSpec(
        "hapt", "mlp", "hapt", model_args={"inputs": 369, "hidden": 64, "classes": 6}, data_args={"devices": 40},
        training=Training(2, 16, 0.05), rounds=Rounds(10, 1.0, 10), epochs=Epochs(1, 20, 10**6),
    ),
    "mnist": TaskSpec(
        "mnist", "mlp", "mnist", model_args={"inputs": 784, "hidden": 200}, data_args={"devices": 100},
        training=Training(1, 20, 0.1), rounds=Rounds(10, 1.0, 10), epochs=Epochs(1, 20, 10**6),
    ),
}  # fmt: skip
"""Labels are spread over the devices by Dirichlet(0.5); 10 of them work in each of 20 rounds. Global models are averages."""
HAPT_TEST = (2, 4, 9, 10, 12, 13, 18, 20, 24)
"""People held out."""


@dataclass(frozen=True)
class Row:
    """One codec on one task. `accuracy` by seed, of the last model; `bytes` of a delta's blocks, the data alone, in the mean.

    `write` and `add`: million values a second; add is from a record's bytes: decode, read, look at the bound, add.
    """

    task: str
    codec: str
    accuracy: tuple[float, ...]
    bytes: float
    of_int32: float
    values: int
    write: float
    add: float
    add_mb_s: float

    @property
    def spread(self) -> float:
        return stdev(self.accuracy) if len(self.accuracy) > 1 else 0.0

    def less(self, than: "Row") -> str:
        """The accuracy lost against another codec with the same seeds, in hundredths."""
        lost = [100 * (b - a) for a, b in zip(self.accuracy, than.accuracy, strict=True)]
        return f"{mean(lost):.2f} ± {stdev(lost) if len(lost) > 1 else 0:.2f}"

    def lines(self, best: float, limit: float) -> Iterator[Line]:
        """`best`: the accuracy of int32; `limit`: million values a second that plain numpy widens and adds."""
        case, settings = f"codec={self.codec} task={self.task}", {"seeds": len(self.accuracy), "keep": keep(self.codec)}
        about = settings | {
            "spread": round(self.spread, 4),
            "bytes": round(self.bytes),
            "of_int32": round(self.of_int32, 4),
        }
        yield Line("codecs", f"accuracy {case}", mean(self.accuracy), "share", best, about)
        yield Line("codecs", f"add {case}", self.add, "Mvalues/s", limit, {"mb_s": round(self.add_mb_s)})
        yield Line("codecs", f"write {case}", self.write, "Mvalues/s", limit)


def keep(name: str) -> float:
    return KEEP if codec(name).sparse else 1.0


# ------------------------------------------------------------------ data by path


def with_data(name: str, path: str) -> None:
    """Make the data set in a file of ours known by its name. Raises `ValueError` for one that is not known here."""
    readers: dict[str, Callable[[Any], tuple[np.ndarray, ...]]] = {"hapt": _hapt, "mnist": _mnist}
    if name not in readers:
        raise ValueError(f"data {name!r} is not known here; known: {', '.join(readers)}")

    @data(name)
    def loader() -> Dataset:
        with np.load(path, allow_pickle=False) as file:
            x, y, test_x, test_y = readers[name](file)
        return Dataset(
            name, x.astype(np.float32), y.astype(np.int64), test_x.astype(np.float32), test_y.astype(np.int64)
        )


def _hapt(file: Any) -> tuple[np.ndarray, ...]:
    x, y, test = file["X_f16"], file["y"], np.isin(file["user"], HAPT_TEST)
    return x[~test], y[~test], x[test], y[test]


def _mnist(file: Any) -> tuple[np.ndarray, ...]:
    return file["X_train"] / 255, file["y_train"], file["X_test"] / 255, file["y_test"]


# ------------------------------------------------------------------ a training


def seeded(spec: TaskSpec, seed: int) -> TaskSpec:
    """The task with another draw of who has which data."""
    return replace(spec, data_args={**spec.data_args, "seed": seed})


def trained(spec: TaskSpec, seed: int) -> Memory:
    """The log of a plane in which the task, `seeded`, ran to its end."""
    shape, start, _ = prepare(spec, seed)
    memory = Memory(seed=seed)
    for scope in (GLOBAL, ZONE):
        for t in zone_topics(NS, scope):
            memory.create(t.name, t.partitions(SHARDS))
    devices = [Device(f"device-{i}", i) for i in range(int(spec.data_args["devices"]))]
    manner = Manner(seed=seed, training=(50, 500), reaction=50, report=MS)
    globe = memory.host(lambda life: GlobalCoordinator(NS, (ZONE,), SHARDS, "globe", life))
    memory.host(lambda life: ZoneCoordinator(NS, ZONE, SHARDS, "zone", life))
    memory.host(lambda life: Aggregator(NS, ZONE, "aggregator", life, 500, MS))
    memory.host(lambda life: Fleet(NS, ZONE, "fleet", life, devices, TorchLearner(), manner))
    memory.host(lambda life: Submitter(NS, life, spec, shape, start, seed))
    processor: Any = globe.processor
    if not memory.run(lambda: spec.task in processor.globe.over, MS):
        raise RuntimeError(f"{spec.task} with {spec.upload.codec} does not end: {globe.stopped}")
    return memory


def training(spec: TaskSpec, seed: int) -> tuple[float, float, float]:
    """A task in a plane of its own: the accuracy of its last model, and the bytes of a delta, as sent and packed by zstd."""
    spec = seeded(spec, seed)
    memory, blocks = trained(spec, seed), len(prepare(spec, seed)[0].sizes)
    ledger: Ledger = Ledger(Globe())
    for record in memory.records(topic(NS, GLOBAL, "ledger").name):
        ledger.feed(record)
    kept = ledger.state.over[spec.task].model
    models = topic(NS, GLOBAL, "models").name
    model = look_up(kept, partial(memory.records, models))
    accuracy = scorer()(spec, model)[0]
    name = topic(NS, ZONE, "deltas", spec.task).name
    sent = [decode(r.value, (DeltaBlock,)).data for p in range(SHARDS) for r in memory.records(name, p)]
    deltas = len(sent) / blocks
    return accuracy, sum(map(len, sent)) / deltas, sum(len(pack(x)) for x in sent) / deltas


# ------------------------------------------------------------------ speed


def real_block() -> np.ndarray:
    """w·δ of a whole block: 64 × 1,024 weights of a layer that a device has just trained on its digits."""
    spec = TASKS["digits"]
    args, set = {"hidden": BLOCK // 64}, load("digits", {})
    x, y = share(set, 3, spec.data_args)
    run = train("mlp", args, to_vector(build("mlp", args, 0)), x, y, spec.training, 0)
    return run.delta[:BLOCK].astype(np.float64) * run.samples


def speeds(block: np.ndarray, name: str) -> tuple[float, float, float]:
    """Million values a second written, and added; and MB of payload a second added."""
    dice, how, largest = np.random.default_rng(0), codec(name), round(LIMITS.largest * 2**-LIMITS.unit)
    wrote = best(lambda: write_values(block, how, LIMITS.unit, LIMITS.largest, dice, keep(name)))
    raw, exponent = write_values(block, how, LIMITS.unit, LIMITS.largest, dice, keep(name))
    record, acc = encode(DeltaBlock("t", 1, 0, "device", 0, name, exponent, 1, 1, 0, raw)), np.zeros(BLOCK, np.int64)

    def add() -> None:
        b = decode(record, (DeltaBlock,))
        values = read_values(codec(b.codec), b.data, BLOCK)
        assert within(values.q, b.exponent, largest)
        values.add(acc, b.exponent)

    added = best(add)
    return len(block) / wrote / 1e6, len(block) / added / 1e6, len(raw) / added / 1e6


def best(once: Callable[[], object], repeat: int = 7, seconds: float = 0.1) -> float:
    """Seconds that a call takes: the best of some means."""
    once()
    times = max(3, round(seconds / max(1e-6, _timed(once, 1))))
    return min(_timed(once, times) for _ in range(repeat))


def _timed(once: Callable[[], object], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        once()
    return (time.perf_counter() - began) / times


# ------------------------------------------------------------------ all of it


def run(
    tasks: Iterable[str] = ("digits",), seeds: int = 3, say: Callable[[str], None] = lambda text: None
) -> list[Row]:
    """Every codec on every task."""
    block = real_block()
    speed = {name: speeds(block, name) for name in CODECS}
    out = []
    for task in tasks:
        spec = TASKS[task]
        values = sum(prepare(spec, 0)[0].sizes)
        for name in (n for n, c in CODECS.items() if not c.packed):
            say(f"{task}: {name}")
            coded = replace(spec, upload=Upload(name))
            accuracy, raw, packed = zip(*(training(coded, seed) for seed in range(seeds)), strict=True)
            for full, size in ((name, mean(raw)), (f"{name}+zstd", mean(packed))):
                out.append(Row(task, full, accuracy, size, size / (4 * values), values, *speed[full]))
    return out


def lines(rows: list[Row]) -> Iterator[Line]:
    limit = widening_add_rate(BLOCK) / 4e6
    best = {r.task: mean(r.accuracy) for r in rows if r.codec == "int32"}
    for r in rows:
        yield from r.lines(best[r.task], limit)


def table(rows: list[Row]) -> Iterator[str]:
    """As Markdown: a table of speeds, and one for each task."""
    yield "| codec | write [Mvalues/s] | read and add [Mvalues/s] | read and add [MB/s] |"
    yield "|---|--:|--:|--:|"
    for r in (r for r in rows if r.task == rows[0].task):
        yield f"| `{r.codec}` | {r.write:,.0f} | {r.add:,.0f} | {r.add_mb_s:,.0f} |"
    limit = widening_add_rate(BLOCK)
    yield f"| *numpy adds int32 to int64* | | {limit / 4e6:,.0f} | {limit / 1e6:,.0f} |"
    for task in dict.fromkeys(r.task for r in rows):
        mine = [r for r in rows if r.task == task]
        yield f"\n**{task}**, {mine[0].values:,} values, {len(mine[0].accuracy)} seeds\n"
        yield "| codec | accuracy | lost against int32, same seed [points] | bytes of a delta | of int32's |"
        yield "|---|--:|--:|--:|--:|"
        for r in mine:
            accuracy = f"{mean(r.accuracy):.4f} ± {r.spread:.4f} | {r.less(mine[0])}"
            yield f"| `{r.codec}` | {accuracy} | {r.bytes:,.0f} | {r.of_int32:.3f} |"


def asked(about: str | None) -> tuple[argparse.Namespace, list[str]]:
    """The command line of a benchmark on real trainings, and the tasks that it names; files of data are known from here on."""
    p = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--data", action="append", default=[], metavar="NAME=FILE", help="hapt or mnist, besides digits")
    p.add_argument("--json", action="store_true")
    args = p.parse_args()
    given = dict(x.split("=", 1) for x in args.data)
    for name, path in given.items():
        with_data(name, path)
    return args, ["digits", *given]


def main() -> None:
    args, tasks = asked(__doc__)
    rows = run(tasks, args.seeds, lambda text: print(text, file=sys.stderr, flush=True))
    for text in (json.dumps(line.as_json()) for line in lines(rows)) if args.json else table(rows):
        print(text)


if __name__ == "__main__":
    main()
