"""Sub-models within a device's limits: against brute force, against greedy, and what no choice may do."""

import math
import time
from functools import partial
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.derive import drawn
from learning.modular.derivation import (
    LEAST,
    STEPS,
    Derivation,
    DoesNotFit,
    Limits,
    derive,
    first,
    greedy,
    needs,
    worth,
)
from schemas.modules import UNLIMITED, Cost, Structure, complete

BATCH = 4
of_the_paper = partial(drawn, batch=BATCH)
FREE = Limits(UNLIMITED, UNLIMITED, UNLIMITED)


def alike(layers: int, shrunk: int) -> Structure:
    return Structure(Cost(20, 20, 10, 200), ((*(Cost(10, 10, 5, 100),) * shrunk, Cost()),) * layers)


@st.composite
def problems(draw, most: int = 5, same: bool = False):
    """Layers of modules that differ, unless they are the `same`; importance with zeros and ties, limits from too little to all."""
    layers = []
    for _ in range(draw(st.integers(1, 2))):
        costs = st.builds(Cost, *(st.integers(1, 20) for _ in range(4)))
        modules = draw(st.lists(costs, min_size=1, max_size=most))
        layers.append((*(modules[:1] * len(modules) if same else modules), Cost()))
    structure = Structure(draw(st.builds(Cost, *(st.integers(0, 20) for _ in range(4)))), tuple(layers))
    value = st.sampled_from([0.0, 0.25, 1.0]) | st.floats(0, 1)
    importance = [[draw(value) for _ in layer] for layer in structure.layers]
    whole = needs(structure.cost(structure.whole), BATCH)
    return structure, importance, Limits(*(int(n * draw(st.floats(0.3, 1.05))) for n in whole))


def fits(structure, choice, limits) -> bool:
    return all(a <= b for a, b in zip(needs(structure.cost(choice), BATCH), limits, strict=True))


def brute(structure, importance, limits) -> float:
    """The best of all choices that have the first choice in them."""
    found, best = first(structure, importance, limits, BATCH), 0.0
    free = [(i, n) for i, layer in enumerate(structure.layers) for n in range(len(layer)) if n not in found[i]]
    for taken in product((False, True), repeat=len(free)):
        more = [at for at, chosen in zip(free, taken, strict=True) if chosen]
        choice = tuple(tuple(sorted([*f, *(n for i, n in more if i == at)])) for at, f in enumerate(found))
        if fits(structure, choice, limits):
            best = max(best, worth(importance, choice))
    return best


# ------------------------------------------------------------------ what is chosen


def test_the_most_important_of_each_layer_comes_first_ties_by_number():
    importance = [[0.1, 0.6, 0.2, 0.1], [0.3, 0.2, 0.3, 0.2]]
    assert first(alike(2, 3), importance, FREE, BATCH) == ((1, 3), (0, 3))


def test_the_residual_module_is_always_in_but_never_the_one_of_a_layer():
    assert first(alike(1, 2), [[0.1, 0.2, 0.7]], FREE, BATCH) == ((1, 2),)


def test_without_limits_all_that_matters_is_in():
    assert derive(alike(2, 3), [[0.5, 0.1, 0.0, 0.4], [0.0, 0.0, 0.0, 1.0]], FREE, BATCH) == ((0, 1, 3), (0, 3))


def test_greedy_s_trap_is_solved():
    """A is worth most for what it needs, and B and C together are worth more in the same room."""
    small, large = Cost(51, 1, 0, 0), Cost(50, 1, 0, 0)
    structure = Structure(Cost(), ((Cost(1), small, large, large, Cost()),))
    importance = [[1.0, 0.52, 0.5, 0.5, 0.0]]
    limits = Limits(4 * 101, UNLIMITED, UNLIMITED)
    assert greedy(structure, importance, limits, BATCH) == ((0, 1, 4),)
    assert derive(structure, importance, limits, BATCH, solver=False) == ((0, 1, 4),)
    assert derive(structure, importance, limits, BATCH) == ((0, 2, 3, 4),)


@pytest.mark.parametrize("limit", range(3))
def test_each_limit_binds(limit):
    """Room for the first of each layer and one more."""
    structure, importance = alike(2, 4), [[0.4, 0.3, 0.2, 0.05, 0.05], [0.3, 0.28, 0.22, 0.1, 0.1]]
    some = needs(structure.cost(((0, 1, 4), (0, 4))), BATCH)
    limits = FREE._replace(**{FREE._fields[limit]: some[limit]})
    assert derive(structure, importance, limits, BATCH) == ((0, 1, 4), (0, 4))


@settings(max_examples=60)
@given(problems())
def test_what_is_derived_is_feasible_optimal_and_never_below_greedy(problem):
    structure, importance, limits = problem
    try:
        quick = greedy(structure, importance, limits, BATCH)
    except DoesNotFit:
        return
    best = derive(structure, importance, limits, BATCH)
    for choice in (quick, best):
        complete(structure, choice)
        assert fits(structure, choice, limits)
        assert all(set(f) <= set(c) for f, c in zip(first(structure, importance, limits, BATCH), choice, strict=True))
    assert worth(importance, best) >= worth(importance, quick)
    step = sum(map(len, importance)) / STEPS
    assert worth(importance, best) == pytest.approx(brute(structure, importance, limits), abs=step)
    assert derive(structure, importance, limits, BATCH) == best


@pytest.mark.parametrize(("layers", "many", "seed"), [(4, 16, 0), (4, 16, 1), (3, 32, 2)])
def test_of_the_paper_s_sizes_it_is_the_best_too(layers, many, seed):
    """Modules of a layer are alike, so the best choice takes the most important of each: all counts are tried."""
    structure, importance, limits = of_the_paper(layers, many, seed)
    order = [sorted(range(many - 1), key=lambda n: -values[n]) for values in importance]
    sums = [[math.fsum(v[n] for n in o[:k]) for k in range(many)] for v, o in zip(importance, order, strict=True)]
    shared, of_each = needs(structure.shared, BATCH), [needs(layer[0], BATCH) for layer in structure.layers]
    best = 0.0
    for counts in product(range(1, many), repeat=layers):
        need = [s + sum(k * e[j] for k, e in zip(counts, of_each, strict=True)) for j, s in enumerate(shared)]
        if all(a <= b for a, b in zip(need, limits, strict=True)):
            best = max(best, sum(s[k] for s, k in zip(sums, counts, strict=True)))
    best += sum(values[-1] for values in importance)
    found = derive(structure, importance, limits, BATCH)
    assert fits(structure, found, limits)
    assert worth(importance, found) == pytest.approx(best, abs=layers * many / STEPS)
    assert worth(importance, greedy(structure, importance, limits, BATCH)) < worth(importance, found)


@pytest.mark.parametrize(("layers", "many", "limit_ms"), [(4, 16, 50), (3, 32, 200)])
def test_it_takes_less_than_its_limit(layers, many, limit_ms):
    """Of processor time, so that a busy machine counts for nothing; the median of some; the solver's import apart."""
    problems = [of_the_paper(layers, many, seed) for seed in range(9)]
    derive(*problems[0], BATCH)
    times = []
    for problem in problems:
        began = time.process_time()
        derive(*problem, BATCH)
        times.append(1000 * (time.process_time() - began))
    assert sorted(times)[len(times) // 2] < limit_ms


# ------------------------------------------------------------------ what is refused


def test_too_small_a_device_is_told_what_it_lacks():
    structure, importance = alike(2, 2), [[0.5, 0.3, 0.2]] * 2
    need = needs(structure.cost(((0, 2), (0, 2))), BATCH)
    with pytest.raises(DoesNotFit, match=r"need 160 bytes to transfer, limit 159$"):
        derive(structure, importance, FREE._replace(bytes=need.bytes - 1), BATCH)
    with pytest.raises(DoesNotFit, match=r"800 bytes of memory, limit 9; 1,200 multiplications a sample, limit 0$"):
        derive(structure, importance, Limits(need.bytes, 9, 0), BATCH)
    assert derive(structure, importance, need, BATCH) == ((0, 2), (0, 2))


@pytest.mark.parametrize(
    ("importance", "limits", "batch", "words"),
    [
        ([[0.5, 0.5]], FREE, 1, r"importance is of \[2\] modules a layer, the model has \[3\]"),
        ([[0.5, math.nan, 0.5]], FREE, 1, "a number from 0 to 1"),
        ([[0.5, -0.1, 0.5]], FREE, 1, "a number from 0 to 1"),
        ([[0.5, 0.1, 0.4]], FREE._replace(macs=-1), 1, "limits are whole numbers"),
        ([[0.5, 0.1, 0.4]], FREE._replace(macs=2**61), 1, "limits are whole numbers"),
        ([[0.5, 0.1, 0.4]], FREE._replace(bytes=6e6), 1, "limits are whole numbers"),
        ([[0.5, 0.1, 0.4]], FREE, 0, "a batch has at least one sample"),
    ],
)
def test_bad_input_is_said_in_words(importance, limits, batch, words):
    for call in (derive, greedy, first):
        with pytest.raises(ValueError, match=words):
            call(alike(1, 2), importance, limits, batch)
    if batch:
        with pytest.raises(ValueError, match=words):
            Derivation(alike(1, 2), batch)(importance, limits)


# ------------------------------------------------------------------ like profiles


def test_like_profiles_have_one_answer_and_unlike_ones_have_not():
    structure = alike(1, 4)
    ask = Derivation(structure, BATCH)
    limits = needs(structure.cost(((0, 1, 4),)), BATCH)
    limits = Limits(*(int(n * 1.04) for n in limits))
    assert ask([[0.4, 0.3, 0.1, 0.1, 0.1]], limits) == ((0, 1, 4),)
    assert ask([[0.401, 0.299, 0.1, 0.1, 0.1]], Limits(*(n + 1 for n in limits))) == ((0, 1, 4),)
    assert ask.hits == 1
    assert ask([[0.1, 0.1, 0.3, 0.4, 0.1]], limits) == ((2, 3, 4),)
    assert ask([[0.4, 0.3, 0.1, 0.1, 0.1]], Limits(*(2 * n for n in limits))) != ((0, 1, 4),)
    assert ask.hits == 1


@settings(max_examples=40)
@given(problems(same=True))
def test_a_kept_answer_is_feasible_near_the_best_and_does_not_depend_on_who_asked_before(problem):
    structure, importance, limits = problem
    ask, fresh = Derivation(structure, BATCH), Derivation(structure, BATCH)
    other = [[v / 2 for v in values] for values in importance]
    try:
        ask(other, limits)
        found = ask(importance, limits)
    except DoesNotFit:
        with pytest.raises(DoesNotFit):
            derive(structure, importance, limits, BATCH)
        return
    assert fits(structure, found, limits)
    assert found == fresh(importance, limits)
    rounded = Limits(*(int(n / 2 ** (1 / 16)) for n in limits))
    try:
        reference = worth(importance, derive(structure, importance, rounded, BATCH))
    except DoesNotFit:
        return
    slack = sum(map(len, importance)) * LEAST
    assert worth(importance, found) >= reference * 2 ** (-1 / 8) - slack


def test_where_rounded_limits_hold_nothing_the_real_ones_decide():
    structure, importance = alike(2, 2), [[0.5, 0.3, 0.2]] * 2
    exactly = needs(structure.cost(((0, 2), (0, 2))), BATCH)
    assert Derivation(structure, BATCH)(importance, exactly) == ((0, 2), (0, 2))
    with pytest.raises(DoesNotFit):
        Derivation(structure, BATCH)(importance, exactly._replace(bytes=exactly.bytes - 1))
