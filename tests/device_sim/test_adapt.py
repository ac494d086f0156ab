"""A device fits a run to what it has, within what the task allows; slow ones then take part and lose nobody's bits."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from device_sim.adapt import COPIES, SHARE, adapt, most_samples
from device_sim.capacity import Capacity
from device_sim.delta import blocks as delta_blocks
from device_sim.device import Device
from device_sim.fleet import Fleet, Manner
from device_sim.job import Job
from device_sim.pace import Phone, up_bytes
from learning.codecs import read_values
from schemas.blocks import DeltaBlock
from schemas.blocks import codec as codec_of
from schemas.facts import Admitted, Committed, Finalised
from schemas.task import Adapt, Training
from schemas.topics import read
from streams.memory import Memory
from tests.device_sim.test_device import round_of
from tests.plane import NS, Done, Plane, spec

SAMPLES = 40
TRAINING = Training(epochs=5, batch=10)


def phone(inference_ms: float = 10.0, kbit_s: float = 8_000.0) -> Phone:
    return Phone(Capacity(inference_ms, kbit_s))


def fitted(pace: Phone, memory: float = 0.0, samples: int = SAMPLES, sizes: tuple[int, ...] = (1000,), **how: Any):
    """The round as this phone does it; the round; how long each takes it (ms)."""
    training, codec = how.pop("training", TRAINING), how.pop("codec", "int32")
    a = replace(round_of("t"), sizes=sizes, training=training, codec=codec, adapt=Adapt(**how))
    b = adapt(a, samples, memory, lambda x: pace.expect(x, samples))
    return b, a, pace.expect(b, samples) if b else None


# ------------------------------------------------------------------ memory


def test_off_nothing_changes():
    b, a, _ = fitted(phone(10_000), memory=0.001)
    assert b is a


def test_a_batch_fits_the_memory_and_no_more_than_that():
    how = {"batch_least": 2, "sample_kb": 1_000.0, "sizes": (65_536,) * 10}
    model = 4 * 65_536 * 10 / 1e6
    for memory, batch in (
        (2 * (COPIES * model + 6.5), 6),
        (2 * (COPIES * model + 100), 10),
        (2 * (COPIES * model + 2), 2),
    ):
        b, a, _ = fitted(phone(), memory, **how)
        assert b == replace(a, training=replace(TRAINING, batch=batch))
        assert COPIES * model + batch * 1.0 <= SHARE * memory
    assert fitted(phone(), 2 * (COPIES * model + 1.9), **how)[0] is None  # not even the smallest
    assert fitted(phone(), 0.0, **how)[0].training == TRAINING  # it does not know its memory
    small = replace(TRAINING, batch=1)
    assert (
        fitted(phone(), 2 * (COPIES * model + 1.5), training=small, **how)[0].training == small
    )  # the task's own is smaller


@pytest.mark.parametrize(
    ("training", "copies"),
    [
        (TRAINING, 3),
        (replace(TRAINING, momentum=0.9), 4),
        (replace(TRAINING, optimiser="adamw"), 5),
    ],
)
def test_what_the_optimiser_remembers_takes_memory(training: Training, copies: int):
    _, a, _ = fitted(phone(), training=training, batch_least=1, sample_kb=1.0, sizes=(250,))
    assert most_samples(a, 2 * copies * 0.001) == 0
    assert most_samples(a, 2 * (copies + 7) * 0.001) == 7
    assert most_samples(a, 0.001) < 0


# ------------------------------------------------------------------ link and speed


def test_a_slow_link_takes_a_shorter_codec_only_if_it_must():
    how = {"most_s": 20.0, "codecs": ("int16", "int8"), "sizes": (65_536,) * 10}
    fast, a, _ = fitted(phone(1), **how)
    assert fast == a
    for kbit_s, codec in ((3_500, "int32"), (2_500, "int16"), (1_800, "int8")):
        b, a, ms = fitted(phone(1, kbit_s), **how)
        assert (b.codec, b.training) == (codec, a.training)
        assert ms <= 20_000
    assert fitted(phone(1, 1_000), **how)[0] is None


@given(st.floats(0.1, 10_000), st.floats(1, 600), st.sampled_from([0.01, 0.1, 0.5, 1.0]), st.integers(1, 300))
def test_as_many_steps_as_end_in_time(inference_ms: float, most_s: float, least: float, samples: int):
    pace = phone(inference_ms)
    b, a, ms = fitted(pace, most_s=most_s, steps_least=least, samples=samples)
    full = a.training.taken(samples)
    fewest = max(1, -(-round(least * full, 6) // 1))
    in_time = [n for n in range(1, full + 1) if _time(pace, a, n, samples) <= 1000 * most_s]
    if full in in_time:
        assert b == a
    elif in_time and in_time[-1] >= fewest:
        assert b.training == replace(a.training, steps=in_time[-1])
        assert ms <= 1000 * most_s
    else:
        assert b is None


def _time(pace: Phone, a: Any, steps: int, samples: int) -> int:
    return pace.expect(replace(a, training=replace(a.training, steps=steps)), samples)


def test_the_shortest_codec_before_fewer_steps():
    b, a, _ = fitted(phone(60, 3_000), most_s=30.0, codecs=("int8",), steps_least=0.1, sizes=(65_536,) * 10)
    assert b.codec == "int8"
    assert 0 < b.training.steps < a.training.taken(SAMPLES)
    assert up_bytes(b) == up_bytes(a) // 4


# ------------------------------------------------------------------ a plane with phones of all speeds


class Counting:
    """Trains nothing, and says of how many samples it saw."""

    def objection(self, a):
        return ""

    def size(self, a, device):
        return SAMPLES, 2

    def run(self, a, device, base):
        seen = min(SAMPLES, a.training.drawn(SAMPLES))
        return Done(np.full(len(base), 0.001 * (1 + device.number), np.float32), seen, 1.0 * seen)


SPEEDS = [5.0 * 2**i for i in range(8)]
"""A run of all 20 steps takes 3 s, 6 s, 12 s … 384 s."""


def took_part(**how: Any) -> tuple[set[int], set[int], list[DeltaBlock]]:
    """Who was admitted and whose delta counted in three rounds of a minute, and what was sent."""
    p = Plane(Memory(seed=2), zones=("east",), devices=0)
    devices = [Device(f"phone-{i}", i, pace=phone(x)) for i, x in enumerate(SPEEDS)]
    manner = Manner(training=(50, 300), reaction=50, report=500)
    p.host("phones", lambda life: Fleet(NS, "east", "phones", life, devices, Counting(), manner))
    s = spec(demand=8, minimum=1, epochs=1, rounds=3, deadline_s=60.0, lease_s=120.0)
    p.submit(replace(s, training=TRAINING, adapt=Adapt(**how)))
    assert p.memory.run(lambda: p.ended("toy"), 600_000)
    facts = p.facts("east")
    assert sum(f.manifest is not None for f in facts if isinstance(f, Finalised)) == 3
    names = {p.hosts["phones"].processor._name(d, "east", "default"): d.number for d in devices}
    slots = {(x.round, x.slot): names[x.device] for f in facts if isinstance(f, Admitted) for x in f.slots}
    done = {slots[d.round, d.slot] for f in facts if isinstance(f, Committed) for d in f.done}
    records = [r for n in range(p.partitions) for r in p.memory.records(f"{NS}.east.deltas.toy", n)]
    return set(slots.values()), done, [read(r.topic, r.value) for r in records]


def test_without_it_slow_devices_stay_away():
    admitted, done, _ = took_part()
    assert admitted == done == set(range(4))  # a minute is too short for the others


def test_with_it_they_do_the_part_that_they_can():
    admitted, done, blocks = took_part(most_s=40.0, steps_least=0.1, codecs=("int8",))
    assert admitted == done == set(range(7))  # the slowest could not take two steps in time
    weights = {b.weight for b in blocks}
    assert SAMPLES in weights
    assert min(weights) == 30  # three steps of ten samples, and that is what it weighs
    assert {b.codec for b in blocks} == {"int32", "int8"}  # in one sum


def test_a_part_of_a_pass_does_not_make_a_device_forget_how_much_it_has():
    d = Device("phone", 0, sizes={"t": (SAMPLES, 2)})
    for seen, known in ((30, SAMPLES), (50, 50)):  # of data that a client alone knows, a run may tell of more
        job = Job("z", round_of("t"), 0)
        d.jobs[job.key] = d.running = job
        d.trained(job, Done(np.zeros(4, np.float32), seen, 1.0), [], 1_000)
        assert d.sizes["t"] == (known, 2)


def test_what_top_k_left_out_is_sent_when_a_device_writes_all_values() -> None:
    a = replace(round_of("t"), sizes=(100,), codec="top-k+int32", keep=0.5, unit=-24, largest=65536.0)
    d = Device("d", 0)
    dice = np.random.default_rng(0)
    wanted, got = np.zeros(100), np.zeros(100)
    for n, name in enumerate(("top-k+int32", "top-k+int32", "int16"), start=1):
        delta = dice.standard_normal(100).astype(np.float32)
        wanted += delta * 10.0
        run = SimpleNamespace(delta=delta, samples=10, loss_sum=1.0)
        (b,) = delta_blocks(d, "d", Job("z", replace(a, codec=name, round=n), 0), run)
        v = read_values(codec_of(name), b.data, 100)
        got[v.at if v.at is not None else slice(None)] += v.q * 2.0 ** (a.unit + b.exponent)
    assert np.abs(wanted - got).max() < 0.01
