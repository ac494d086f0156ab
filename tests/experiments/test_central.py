"""One server of one layer: whom it takes, what they send, what a round takes; the same bits each time."""

from dataclasses import replace
from itertools import islice, product

import msgspec
import numpy as np
import pytest
from torch import nn

from device_sim.capacity import Capacity, Usual
from device_sim.data import load, share
from device_sim.engine import Engine
from device_sim.pseudonym import seed_of
from device_sim.trainer import Job
from experiments.central import Course, known, rounds
from experiments.peers import Peer
from learning import oort, pyramidfl
from learning.models import model
from schemas.task import BadTask, Rounds, Server, TaskSpec, Training

SELECTORS = ("random", "oort", "pyramidfl", "pyramidfl-code")
SPEC = TaskSpec(
    task="digits",
    model="mlp",
    model_args={"hidden": 16},
    data="digits",
    data_args={"devices": 30, "alpha": 0.5, "seed": 1},
    training=Training(batch=8, steps=5, learning_rate=0.2, prox=0.1),
    rounds=Rounds(demand=6, over_commit=1.3),
)
LINEAR = msgspec.structs.replace(SPEC, model="linear", model_args={})
SPEEDS = [Usual().of(0, f"a-{i}") for i in range(30)]
PLAIN = pyramidfl.Settings(low=0, high=0, beta=0)
"""With this PyramidFL is Oort."""


@model("test-normed")
def normed() -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 10))


@pytest.fixture(scope="module")
def engine():
    with Engine(cores=2) as engine:
        yield engine


def some(engine, peer: Peer | str, many: int = 4, spec: TaskSpec = SPEC, seed: int = 3, **course):
    peer = Peer(peer) if isinstance(peer, str) else peer
    return list(islice(rounds(spec, Course(peer, **course), SPEEDS, engine, seed), many))


def times(spec: TaskSpec = SPEC) -> np.ndarray:
    return known(spec, Course(), SPEEDS, load("digits", {}), 64 * 16 + 16 + 160 + 10).times


def bits(all_rounds) -> list:
    return [replace(r, model=r.model.tobytes()) for r in all_rounds]


# ------------------------------------------------------------------ all of them


@pytest.mark.parametrize("name", SELECTORS)
def test_the_same_seed_gives_the_same_bits_and_another_one_others(engine, name):
    first = some(engine, name)
    assert bits(first) == bits(some(engine, name))
    assert first[-1].model.tobytes() != some(engine, name, seed=4)[-1].model.tobytes()


@pytest.mark.parametrize("name", SELECTORS)
def test_it_learns_and_says_what_it_cost(engine, name):
    done = some(engine, name, many=20, score_every=10)
    assert [r.number for r in done if r.accuracy is not None] == [10, 20]
    assert done[19].accuracy > 0.7
    assert done[19].loss < done[9].loss
    for before, r in zip([None, *done], done, strict=False):
        assert len(set(r.selected)) == 8
        assert len(r.counted) == 6
        assert set(r.counted) <= set(r.selected)
        assert r.at_s > (before.at_s if before else 0)
        assert r.runs == 8 * r.number
        assert r.down_bytes == r.runs * 4 * r.model.size
    assert all(r.up_bytes % 4 == 0 for r in done)


@pytest.mark.parametrize("name", ["random", "oort"])
def test_the_fastest_run_and_the_last_of_them_ends_the_round(engine, name):
    before, t = 0.0, times()
    for r in some(engine, name):
        order = sorted(r.selected, key=lambda i: t[i])
        assert sorted(r.counted) == sorted(order[:6])
        assert r.at_s - before == pytest.approx(t[order[5]])
        assert r.up_bytes == r.number * 6 * 4 * r.model.size
        assert r.steps == r.number * 8 * 5
        before = r.at_s


def test_a_devices_time_is_that_of_its_steps_and_of_a_models_way():
    """3 × 8 samples × 5 steps × 10 ms + 131,072 kbit / 4,096 kbit/s, or 2 × 32 bits × 1,210."""
    speeds, data = [Capacity(inference_ms=10, kbit_s=4096)] * 30, load("digits", {})
    spec = known(SPEC, Course(transfer_kbit=131_072), speeds, data, 1210)
    assert spec.times.tolist() == pytest.approx([1.2 + 32] * 30)
    assert known(SPEC, Course(), speeds, data, 1210).transfer_s[0] == pytest.approx(77.44 / 4096)
    by_passes = msgspec.structs.replace(SPEC, training=Training(batch=8, epochs=2))
    devices = known(by_passes, Course(), speeds, data, 1210)
    assert devices.steps == [2 * b for b in devices.batches]
    assert devices.batches == [-(-n // 8) for n in devices.samples]


# ------------------------------------------------------------------ who is selected, and who fails


def test_oort_prefers_the_fast_once_it_knows_them(engine):
    t = times()
    by = {
        name: np.mean([t[i] for r in some(engine, name, 20, score_every=99)[5:] for i in r.selected])
        for name in ("random", "oort")
    }
    assert by["oort"] < 0.8 * by["random"]


def test_oorts_settings_reach_it(engine):
    usual = some(engine, "oort")
    other = some(engine, Peer("oort", oort.Settings(explored=0.1, least_explored=0)))
    assert [r.selected for r in usual[1:]] != [r.selected for r in other[1:]]


def test_who_drops_out_does_not_count(engine):
    half = some(engine, "oort", many=8, drop_out=0.5)
    assert 20 < sum(len(r.counted) for r in half) < 44  # 8 × 8 / 2
    lost = some(engine, "pyramidfl", many=2, drop_out=1)
    assert [r.counted for r in lost] == [[], []]
    assert lost[0].model.tobytes() == lost[1].model.tobytes()
    assert 0 < lost[0].at_s < lost[1].at_s
    assert lost[1].up_bytes == 0


def test_who_is_not_free_is_not_selected_and_who_goes_meanwhile_does_not_count(engine):
    """Even devices are free, from an hour on, and 0 and 2 only just then."""

    def free(i: int, at_s: float) -> bool:
        return i % 2 == 0 and at_s >= 3600 and (i > 2 or at_s == 3600)

    spec = msgspec.structs.replace(SPEC, rounds=Rounds(demand=20))
    first, second = some(engine, "oort", 2, spec, free=free)
    assert sorted(first.selected) == list(range(0, 30, 2))
    assert sorted(first.counted) == list(range(4, 30, 2))
    assert first.at_s == pytest.approx(3600 + times()[4::2].max())
    assert sorted(second.selected) == list(range(4, 30, 2))


def test_if_nobody_is_ever_free_it_says_so(engine):
    with pytest.raises(ValueError, match="no device is free for a year from 0 s on"):
        next(rounds(SPEC, Course(free=lambda i, at: False), SPEEDS[:2], engine, 0))


@pytest.mark.parametrize("low", [0.1, 1])
def test_a_training_that_diverges_does_not_count(engine, low):
    """Nor if what is no number was dropped on the way."""
    wild = msgspec.structs.replace(SPEC, training=Training(batch=8, steps=5, learning_rate=1e30))
    for r in some(engine, Peer("pyramidfl", work=pyramidfl.Settings(low, high=1)), 2, wild):
        assert r.counted == []
        assert np.isfinite(r.model).all()


# ------------------------------------------------------------------ PyramidFL


@pytest.mark.parametrize("name", ["pyramidfl", "pyramidfl-code"])
def test_pyramidfl_that_drops_nothing_and_adds_no_step_is_oort(engine, name):
    assert bits(some(engine, Peer(name, work=PLAIN))) == bits(some(engine, "oort"))


def test_pyramidfl_trains_more_in_less_time_and_sends_less(engine):
    mine, theirs = (some(engine, name, 10, score_every=99) for name in ("pyramidfl", "oort"))
    assert mine[0].selected == theirs[0].selected  # nobody was heard of yet
    assert mine[0].at_s < theirs[0].at_s
    assert mine[9].steps > 1.5 * theirs[9].steps
    assert mine[9].up_bytes < 0.9 * theirs[9].up_bytes


def test_the_variants_of_the_gradient_utility_are_two(engine):
    intent, code = (some(engine, name, 8) for name in ("pyramidfl", "pyramidfl-code"))
    assert intent[0].model.tobytes() == code[0].model.tobytes()
    assert intent[7].model.tobytes() != code[7].model.tobytes()


def test_what_is_dropped_is_nought_and_still_divided_by(engine):
    """A linear model has two tensors: each device sent some of its own, and the change is their sum over all that came."""
    half = Peer("pyramidfl", work=pyramidfl.Settings(low=0.5, high=0.5, beta=0))
    (first,) = some(engine, half, 1, LINEAR, seed=5)
    began = some(engine, half, 1, LINEAR, seed=5, drop_out=1)[0].model
    data = load("digits", {})
    jobs = [
        Job("linear", {}, began, *share(data, i, LINEAR.data_args), LINEAR.training, seed_of(5, "run", 1, i))
        for i in first.counted
    ]
    deltas = np.array([run.delta for run in engine.runs(jobs)], np.float64)
    change, sent = first.model.astype(np.float64) - began, 0
    for tensor in (slice(0, 640), slice(640, 650)):
        fits = [
            s
            for s in product((0, 1), repeat=6)
            if np.allclose(np.dot(s, deltas[:, tensor]) / 6, change[tensor], atol=1e-6)
        ]
        assert len(fits) == 1
        assert 0 < sum(fits[0]) < 6
        sent += 4 * sum(fits[0]) * (tensor.stop - tensor.start)
    assert first.up_bytes == sent


def test_all_dropped_leaves_the_model_as_it_was(engine):
    none = Peer("pyramidfl", work=pyramidfl.Settings(low=1, high=1, beta=0))
    first, second = some(engine, none, 2)
    assert len(first.counted) == 6
    assert first.model.tobytes() == second.model.tobytes()
    assert second.up_bytes == 0


def test_the_statistics_of_batchnorm_are_never_dropped():
    none = Peer("pyramidfl", work=pyramidfl.Settings(low=1, high=1, beta=0))
    once = Training(batch=8, steps=1)  # a later batch may be of one sample, which has no variance
    spec = msgspec.structs.replace(SPEC, model="test-normed", model_args={}, training=once)
    with Engine(cores=1) as engine:
        first, second = some(engine, none, 2, spec)
    values = 64 * 10 + 10 + 64 * 2
    assert first.model[:values].tobytes() == second.model[:values].tobytes()
    assert (first.model[values:] != second.model[values:]).any()
    assert first.up_bytes == 6 * 4 * (64 * 2)


# ------------------------------------------------------------------ optimisers, and what cannot be


def test_pyramidfls_yogi_is_plain_averaging_first_and_then_is_not(engine):
    yogi = msgspec.structs.replace(SPEC, server=Server("pyramidfl-yogi"))
    ours, plain = some(engine, "random", 2, yogi), some(engine, "random", 2)
    assert ours[0].model == pytest.approx(plain[0].model, abs=1e-6)
    assert np.abs(ours[1].model - plain[1].model).max() > 1e-3


def test_prox_pulls(engine):
    free = msgspec.structs.replace(SPEC, training=msgspec.structs.replace(SPEC.training, prox=0.0))
    assert some(engine, "random", 1, free)[0].model.tobytes() != some(engine, "random", 1)[0].model.tobytes()


@pytest.mark.parametrize(
    ("course", "said"),
    [
        ({"drop_out": 1.5}, "a chance from 0 to 1, not 1.5"),
        ({"score_every": 0}, "1 round or more, not 0"),
        ({"transfer_kbit": 0.0}, "above 0, not 0.0"),
    ],
)
def test_a_course_that_cannot_be_is_refused(course, said):
    with pytest.raises(ValueError, match=said):
        Course(**course)


def test_selectors_and_tasks_that_are_not_known_are_refused(engine):
    with pytest.raises(ValueError, match="known: random, oort, pyramidfl, pyramidfl-code"):
        some(engine, "best")
    with pytest.raises(ValueError, match="a server needs devices"):
        rounds(SPEC, Course(), [], engine, 0)
    with pytest.raises(BadTask, match="no data 'nothing'"):
        some(engine, "random", spec=msgspec.structs.replace(SPEC, data="nothing"))
    with pytest.raises(ValueError, match="device 20 is not one of the 20"):
        some(engine, "random", spec=msgspec.structs.replace(SPEC, data_args={"devices": 20}))
