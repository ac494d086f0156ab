"""Server optimisers: the papers' numbers, blocks that stay as they are, and the same bits from the stored state."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.aggregation import apply_mean, mean
from learning.optimisers import apply_merged, apply_sums, first_state, state_sizes, step
from schemas.blocks import BLOCK
from schemas.task import OPTIMISERS, Server

UNIT = -24
EVERY = [pytest.param(Server(name), id=name) for name in OPTIMISERS]
DELTAS = (0.5, -0.2, 0.1)

sums_of = st.lists(st.integers(-(2**40), 2**40), min_size=5, max_size=5).map(lambda v: np.array(v, np.int64))
models = st.lists(st.floats(-100, 100, width=32), min_size=5, max_size=5).map(lambda v: np.array(v, np.float32))
weights_of = st.lists(st.integers(0, 1000), min_size=3, max_size=3)
SIZES = (2, 2, 1)


def units(delta: float) -> np.ndarray:
    return np.array([round(delta * 2**24)], np.int64)


def run(server: Server, deltas=DELTAS) -> list[float]:
    """The model, 1 at first, after each of these deltas; in float64, model and state alike."""
    x, out = np.array([1.0]), []
    state = [np.array([s], np.float64) for s in first_state(server, 1)]
    for d in deltas:
        change, state = step(server, np.array([d]), state)
        x = x + change
        out.append(float(x[0]))
    return out


def run_as_stored(server: Server, deltas=DELTAS) -> list[float]:
    """The same in float32 between the steps, as the leaders do it."""
    x, state, out = np.ones(1, np.float32), first_state(server, 1), []
    for d in deltas:
        x, state = apply_sums(server, x, units(d), [1], [1], UNIT, state)
        out.append(float(x[0]))
    return out


# ------------------------------------------------------------------ numbers

NUMBERS = {
    "fedavg": (Server("fedavg"), (1.5, 1.3, 1.4)),
    "fedavgm": (Server("fedavgm", learning_rate=1.0, momentum=0.9), (1.5, 1.75, 2.075)),
    "fedadagrad": (Server("fedadagrad", learning_rate=0.1), (1.099800, 1.062730, 1.080954)),
    "fedadam": (Server("fedadam", learning_rate=0.1), (1.098020, 1.143784, 1.202567)),
    "fedyogi": (Server("fedyogi", learning_rate=0.1), (1.098020, 1.143590, 1.201853)),
    "pyramidfl-yogi": (Server("pyramidfl-yogi"), (1.5, 1.498004, 1.499002)),
}


@pytest.mark.parametrize("how", [run, run_as_stored])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_numbers_worked_for_each(name, how):
    """x = 1, Δ = 0.5, -0.2, 0.1; all but the rate as by default (research sheet, section 7)."""
    server, wanted = NUMBERS[name]
    assert how(server) == pytest.approx(wanted, abs=6e-7)


def test_defaults_are_those_of_the_papers():
    for name in ("fedadam", "fedyogi"):
        assert {k: v for k, v in Server(name).settings.items() if k != "learning_rate"} == {
            "beta1": 0.9,
            "beta2": 0.99,
            "tau": 1e-3,
        }
    assert Server("fedavgm").settings == {"learning_rate": 1.0, "momentum": 0.9}
    assert Server("pyramidfl-yogi").settings == {"learning_rate": 5e-3, "beta2": 0.999, "tau": 1e-3}


def test_settings_reach_the_formulas():
    """One step by hand, with every setting away from its default."""
    d, tau = 0.5, 0.1
    [adam] = run(Server("fedadam", learning_rate=2.0, beta1=0.5, beta2=0.75, tau=tau), [d])
    v0 = float(np.float32(tau**2))
    assert adam == pytest.approx(1 + 2 * 0.25 / (math.sqrt(0.75 * v0 + 0.25 * 0.25) + tau), rel=1e-12)
    [yogi] = run(Server("fedyogi", learning_rate=2.0, beta1=0.5, beta2=0.75, tau=tau), [d])
    assert yogi == pytest.approx(1 + 2 * 0.25 / (math.sqrt(v0 + 0.25 * 0.25) + tau), rel=1e-12)
    [adagrad] = run(Server("fedadagrad", learning_rate=2.0, tau=tau), [d])
    assert adagrad == pytest.approx(1 + 2 * 0.5 / (math.sqrt(v0 + 0.25) + tau), rel=1e-12)
    assert run(Server("fedavgm", learning_rate=0.5, momentum=0.25), [0.5, 0.5]) == [1.25, 1.5625]
    assert run(Server("fedavg", learning_rate=0.5), [0.5]) == [1.25]
    later = run(Server("pyramidfl-yogi", learning_rate=0.25, beta2=0.5, tau=tau), [0.5, 1.0])
    assert later == pytest.approx([1.5, 1.5 + 0.25 / (math.sqrt(0.25 + 0.5) + tau)], rel=1e-12)


def test_yogis_v_stands_still_where_it_is_the_square():
    server = Server("fedyogi")
    _, (_, v) = step(server, np.array([0.5]), [np.zeros(1), np.array([0.25])])
    assert v.tolist() == [0.25]  # sign(0) = 0


# ------------------------------------------------------------------ blocks, purity, bits


@given(models, sums_of, weights_of)
def test_fedavg_is_apply_mean_bit_for_bit(model, sums, weights):
    new, state = apply_sums(Server(), model, sums, weights, SIZES, UNIT, first_state(Server(), 5))
    assert new.tobytes() == apply_mean(model, sums, weights, SIZES, UNIT).tobytes()
    assert state.size == 0


@pytest.mark.parametrize("server", EVERY)
def test_a_step_is_the_formula_on_each_block_and_leaves_its_arguments_alone(server):
    dice = np.random.default_rng(3)
    model, state = dice.standard_normal(5).astype(np.float32), first_state(server, 5)
    weights = [3, 0, 7]
    for _ in range(4):
        sums = dice.integers(-(2**26), 2**26, 5)
        before = [a.tobytes() for a in (model, sums, state)]
        for a in (model, sums, state):
            a.flags.writeable = False  # as the views of fetched blocks are
        new, kept = apply_sums(server, model, sums, weights, SIZES, UNIT, state)
        assert [a.tobytes() for a in (model, sums, state)] == before
        assert new.dtype == kept.dtype == np.float32
        again = apply_sums(server, model, sums, weights, SIZES, UNIT, state)
        assert (new.tobytes(), kept.tobytes()) == (again[0].tobytes(), again[1].tobytes())
        for here, weight in ((slice(0, 2), 3), (slice(4, 5), 7)):
            arrays = [a[here].astype(np.float64) for a in np.split(state, len(state) // 5)] if state.size else []
            change, after = step(server, mean(sums[here], weight, UNIT), arrays)
            assert new[here].tobytes() == (model[here] + change).astype(np.float32).tobytes()
            assert [a[here].tolist() for a in np.split(kept, len(after) or 1) if after] == [
                a.astype(np.float32).tolist() for a in after
            ]
        model, state = new, kept


@pytest.mark.parametrize("server", EVERY)
def test_a_block_of_weight_0_keeps_model_and_state_bit_for_bit(server):
    model = np.array([1.5, -0.0, 2.0, -3.0, 0.1], np.float32)
    state = first_state(server, 5)
    for n, weights in enumerate(([1, 1, 1], [1, 0, 2], [0, 0, 0])):
        sums = np.full(5, 2 ** (23 - n))
        new, kept = apply_sums(server, model, sums, weights, SIZES, UNIT, state)
        rows, old = kept.reshape(-1, 5), state.reshape(-1, 5)
        for here, weight in zip((slice(0, 2), slice(2, 4), slice(4, 5)), weights, strict=True):
            same = [new[here].tobytes() == model[here].tobytes()]
            same += [a[here].tobytes() == b[here].tobytes() for a, b in zip(rows, old, strict=True)]
            assert all(same) if weight == 0 else not any(same)
        model, state = new, kept


def test_pyramidfls_first_round_is_each_blocks_own():
    """A block that nobody sent in round 1 has its first round later: raw delta, v its square."""
    server, one = Server("pyramidfl-yogi"), np.array([2**23, 2**23])
    model, state = np.ones(2, np.float32), first_state(server, 2)
    model, state = apply_sums(server, model, one, [1, 0], [1, 1], UNIT, state)
    assert (model.tolist(), state.tolist()) == ([1.5, 1.0], [0.25, -1.0])
    model, state = apply_sums(server, model, one, [1, 1], [1, 1], UNIT, state)
    assert (model[1], state[1]) == (1.5, 0.25)
    assert model[0] == pytest.approx(1.5 + 5e-3 * 0.5 / 0.501)


@pytest.mark.parametrize("server", EVERY)
def test_bits_come_from_the_stored_state_alone(server):
    """One leader that goes on in memory, one that reads model and state back from bytes before each round."""
    dice = np.random.default_rng(1)
    here = there = (dice.standard_normal(5).astype(np.float32), first_state(server, 5))
    for n in range(6):
        sums, weights = dice.integers(-(2**28), 2**28, 5), [1, n % 2, 5]
        here = apply_sums(server, here[0], sums, weights, SIZES, UNIT, here[1])
        read = [np.frombuffer(a.astype("<f4").tobytes(), "<f4") for a in there]
        there = apply_sums(server, read[0], sums, weights, SIZES, UNIT, read[1])
        assert [a.tobytes() for a in here] == [a.tobytes() for a in there]


@pytest.mark.parametrize("server", EVERY)
def test_a_state_is_cut_into_blocks_and_put_together_again(server):
    sizes = (BLOCK, 3, BLOCK)
    n, cut = sum(sizes), state_sizes(server, sum(sizes))
    state = first_state(server, n)
    assert sum(cut) == state.size
    assert all(0 < size <= BLOCK for size in cut)
    assert len(cut) == -(-state.size // BLOCK)
    state = np.random.default_rng(0).standard_normal(state.size).astype(np.float32) ** 2
    pieces = np.split(state, np.cumsum(cut)[:-1]) if cut else []
    again = np.concatenate([np.frombuffer(p.tobytes(), "<f4") for p in pieces] or [state])
    zeros = np.zeros(n, np.int64)
    new = [apply_sums(server, np.ones(n, np.float32), zeros, [1, 0, 1], sizes, UNIT, s) for s in (state, again)]
    assert new[0][0].tobytes() == new[1][0].tobytes()
    assert new[0][1].tobytes() == new[1][1].tobytes()


@pytest.mark.parametrize("server", EVERY)
def test_lengths_that_do_not_fit_are_refused(server):
    model, sums, state = np.ones(5, np.float32), np.ones(5, np.int64), first_state(server, 5)
    bad = [
        (model, sums, [1, 1], SIZES, state),
        (model, sums[:4], [1, 1, 1], SIZES, state),
        (model, sums, [1, 1, 1], (2, 2, 2), state),
        (model, sums, [1, 1, 1], SIZES, np.ones(state.size + 1, np.float32)),
    ]
    for m, s, weights, sizes, old in bad:
        with pytest.raises(ValueError, match=r"blocks|sums"):
            apply_sums(server, m, s, weights, sizes, UNIT, old)


def test_the_unit_scales_the_sums():
    a = apply_sums(
        Server("fedadam"), np.ones(1, np.float32), units(0.5), [1], [1], UNIT, first_state(Server("fedadam"), 1)
    )
    b = apply_sums(
        Server("fedadam"),
        np.ones(1, np.float32),
        units(0.5) << 10,
        [1],
        [1],
        UNIT - 10,
        first_state(Server("fedadam"), 1),
    )
    assert [x.tobytes() for x in a] == [x.tobytes() for x in b]


@pytest.mark.parametrize("server", EVERY)
def test_long_runs_stay_finite_and_v_never_falls_below_0(server):
    dice = np.random.default_rng(7)
    model, state = np.zeros(5, np.float32), first_state(server, 5)
    for n in range(300):
        sums = np.rint(dice.standard_normal(5) * 10.0 ** dice.integers(-9, 6) * 2**24).astype(np.int64) * (n % 7 != 3)
        model, state = apply_sums(server, model, sums, [1, 2, 3], SIZES, UNIT, state)
        assert np.isfinite(model).all()
        assert np.isfinite(state).all()
        if server.optimiser not in ("fedavg", "fedavgm"):
            assert (state[-5:] >= 0).all()


@pytest.mark.parametrize("server", EVERY)
def test_plain_blocks_take_the_mean_and_have_no_state_whatever_the_optimiser(server):
    """BatchNorm's variance, say: 4 on the server, 1 on all devices."""
    model, state = np.array([0.5, -0.5, 4.0, 4.0, 0.1], np.float32), first_state(server, 5)
    for _ in range(3):
        sums = np.array([2**24, 2**20, -9 * 2**24, 0, 2**24])
        new, kept = apply_sums(server, model, sums, [3, 3, 0], SIZES, UNIT, state, plain={1, 2})
        other, rest = apply_sums(server, model, sums, [3, 0, 0], SIZES, UNIT, state)
        assert new[2:].tolist() == [float(model[2]) - 3, model[3], model[4]]
        assert new[:2].tobytes() == other[:2].tobytes()
        assert kept.tobytes() == rest.tobytes()  # as if nobody had sent the plain ones
        model, state = new, kept
        model[2] = 4


# ------------------------------------------------------------------ in the globe


@pytest.mark.parametrize("server", EVERY)
def test_the_globes_pseudo_gradient_is_merged_minus_last(server):
    last = np.array([1.0, 2.0, 3.0, -0.0, 5.0], np.float32)
    merged = np.array([1.5, 1.9, 3.0, -0.0, 4.0], np.float32)  # nobody sent the second block
    state = first_state(server, 5)
    new, kept = apply_merged(server, last, merged, SIZES, state)
    assert new[2:4].tobytes() == last[2:4].tobytes()
    assert [a[2:4].tobytes() for a in kept.reshape(-1, 5)] == [a[2:4].tobytes() for a in state.reshape(-1, 5)]
    arrays = [a.astype(np.float64) for a in state.reshape(-1, 5)]
    change, after = step(server, merged.astype(np.float64) - last.astype(np.float64), arrays)
    for here in (slice(0, 2), slice(4, 5)):
        assert new[here].tobytes() == (last[here] + change[here]).astype(np.float32).tobytes()
        assert all(
            (a[here] == b[here].astype(np.float32)).all() for a, b in zip(kept.reshape(-1, 5), after, strict=True)
        )


def test_fedavg_in_the_globe_is_the_merge_itself():
    last, merged = np.array([1e30], np.float32), np.array([1e-10], np.float32)  # the difference would round 1e-10 away
    assert apply_merged(Server(), last, merged, [1], first_state(Server(), 1))[0].tobytes() == merged.tobytes()
    half = Server("fedavg", at="globe", learning_rate=0.5)
    assert apply_merged(half, np.zeros(1, np.float32), np.ones(1, np.float32), [1], first_state(half, 1))[0] == 0.5


@pytest.mark.parametrize("server", EVERY)
def test_in_the_globe_plain_blocks_are_the_merge_itself(server):
    last, merged = np.array([1, 2, 1e15, 4, 5], np.float32), np.array([1.5, 1.9, 1e-10, 3, 4], np.float32)
    state = first_state(server, 5)
    new, kept = apply_merged(server, last, merged, SIZES, state, plain={1})
    assert new[2:4].tobytes() == merged[2:4].tobytes()
    other, _ = apply_merged(server, last, merged, SIZES, state)
    assert new[[0, 1, 4]].tobytes() == other[[0, 1, 4]].tobytes()
    assert [a[2:4].tobytes() for a in kept.reshape(-1, 5)] == [a[2:4].tobytes() for a in state.reshape(-1, 5)]


def test_models_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="merged"):
        apply_merged(Server("fedadam"), np.zeros(2, np.float32), np.zeros(3, np.float32), [2], np.zeros(4, np.float32))
