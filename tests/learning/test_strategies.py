"""Strategies of one's own: under the optimisers' rules to the bit, and what must not be stored is refused in words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning import strategies
from learning.optimisers import apply_merged, apply_sums, first_state, state_sizes
from learning.strategies import StrategyFailed, strategy, unknown
from schemas import task
from schemas.blocks import BLOCK
from schemas.task import Server

UNIT = -24
SIZES = (2, 2, 1)
sums_of = st.lists(st.integers(-(2**40), 2**40), min_size=5, max_size=5).map(lambda v: np.array(v, np.int64))
models = st.lists(st.floats(-100, 100, width=32), min_size=5, max_size=5).map(lambda v: np.array(v, np.float32))
weights_of = st.lists(st.integers(0, 1000), min_size=3, max_size=3)


@pytest.fixture(autouse=True, scope="module")
def registry():
    """Registries of this file's own, with `fedavgm` written as somebody else would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategies, "_own", {})
        patch.setattr(strategies, "STRATEGIES", {})
        patch.setattr(task, "STRATEGIES", strategies.STRATEGIES)

        @strategy("rolling", settings={"rate": 1.0, "momentum": 0.9}, arrays=1)
        def rolling(settings, model, delta, state):
            (b,) = state
            b *= settings["momentum"]  # in place: the arrays are the function's own
            b += delta
            model += settings["rate"] * b
            return model, [b]

        yield


@given(models, sums_of, weights_of, sums_of)
def test_it_is_what_a_built_in_one_with_its_formula_is_bit_for_bit(model, first, weights, second):
    own, built_in = Server("rolling", args={"rate": 0.5}), Server("fedavgm", learning_rate=0.5)
    new, state = model, first_state(own, 5)
    must, must_state = model, first_state(built_in, 5)
    assert state.tobytes() == must_state.tobytes()
    for sums in (first, second):
        before = new.tobytes(), state.tobytes()
        was = new, state
        new, state = apply_sums(own, new, sums, weights, SIZES, UNIT, state)
        must, must_state = apply_sums(built_in, must, sums, weights, SIZES, UNIT, must_state)
        assert (was[0].tobytes(), was[1].tobytes()) == before  # nothing that was given is written on
        assert new.tobytes() == must.tobytes()
        assert state.tobytes() == must_state.tobytes()


@given(models, models)
def test_so_it_is_in_the_globe(model, merged):
    own, built_in = Server("rolling", at="globe"), Server("fedavgm", at="globe")
    got, must = (apply_merged(s, model, merged, SIZES, first_state(s, 5)) for s in (own, built_in))
    assert [a.tobytes() for a in got] == [a.tobytes() for a in must]


def test_the_size_of_its_state_follows_from_its_arrays():
    assert state_sizes(Server("rolling"), BLOCK + 5) == (BLOCK, 5)
    assert first_state(Server("rolling"), 3).tolist() == [0, 0, 0]


def test_it_is_called_by_block_and_only_for_blocks_that_somebody_sent(monkeypatch):
    asked = []

    @strategy("watched")
    def watched(settings, model, delta, state):
        asked.append((model.tolist(), delta.tolist(), model.dtype, delta.dtype, state))
        return model + delta, state

    model, sums = np.arange(5, dtype=np.float32), np.arange(5) * 2**24
    new, _ = apply_sums(Server("watched"), model, sums, [1, 0, 2], SIZES, UNIT, first_state(Server("watched"), 5))
    f8 = np.dtype(np.float64)
    assert asked == [([0, 1], [0, 1], f8, f8, []), ([4], [2], f8, f8, [])]
    assert new.tolist() == [0, 2, 2, 3, 6]


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("fedavg", {}, "there is a server optimiser 'fedavg' already"),
        ("rolling", {}, "there is a server optimiser 'rolling' already"),
        ("My own", {}, "name has a-z, 0-9 and '-'"),
        ("new", {"arrays": -1}, "arrays is how many arrays of state it has, not -1"),
        ("new", {"arrays": True}, "not True"),
        ("new", {"arrays": 1.5}, r"not 1\.5"),
        ("new", {"settings": {"rate": "fast"}}, "settings are numbers, and rate is 'fast'"),
        ("new", {"settings": {"on": True}}, "settings are numbers, and on is True"),
    ],
)
def test_a_registration_that_cannot_be(name, more, words):
    with pytest.raises(ValueError, match=words):
        strategy(name, **more)
    assert unknown(Server("new"))


def failing(n: int, function, arrays: int = 1) -> str:
    """What a step of this function is refused with."""
    name = f"failing-{n}"
    strategy(name, arrays=arrays)(function)
    server = Server(name)
    with pytest.raises(StrategyFailed) as e:
        apply_sums(server, np.ones(5, np.float32), np.ones(5, np.int64), [1, 1, 1], SIZES, UNIT, first_state(server, 5))
    return str(e.value)


def test_what_a_function_must_not_give():
    def raises(settings, model, delta, state):
        return model * settings["rate"], state

    assert "strategy 'failing-0' failed: KeyError: 'rate'" in failing(0, raises)
    assert "failed: TypeError" in failing(1, lambda s, m, d, state: m)
    assert "gave a model of shape (1,), not (2,)" in failing(2, lambda s, m, d, state: (m[:1], state))
    assert "gave 0 arrays of state, and said it has 1" in failing(3, lambda s, m, d, state: (m, []))
    assert "gave a state array 0 of shape (4,)" in failing(4, lambda s, m, d, state: (m, [np.zeros(4)]))
    assert "gave a model with values that are not finite" in failing(5, lambda s, m, d, state: (m * np.nan, state))
    assert "gave a model with values that are not finite" in failing(6, lambda s, m, d, state: (m * 1e39, state))
    assert "gave a state array 0 with values" in failing(7, lambda s, m, d, state: (m, [np.full(2, np.inf)]))


def test_one_that_is_not_known_here_says_what_to_do():
    server = Server("elsewhere", args={"most": 1.0})
    why = unknown(server)
    assert "server.optimiser 'elsewhere' is not known here; known: fedavg, " in why
    assert "rolling" in why
    assert "start this role with --load and the file that has it" in why
    for act in (lambda: state_sizes(server, 5), lambda: first_state(server, 5)):
        with pytest.raises(StrategyFailed, match="--load"):
            act()
    assert unknown(Server("rolling")) == unknown(Server()) == ""


def test_state_of_other_code_is_not_taken_for_its_own():
    strategy("grown", arrays=2)(lambda s, m, d, state: (m, state))
    with pytest.raises(StrategyFailed, match="has 2 arrays of state here, and what is stored has 5 values"):
        apply_sums(
            Server("grown"), np.ones(5, np.float32), np.ones(5, np.int64), [1] * 3, SIZES, UNIT, np.zeros(5, np.float32)
        )
