"""Tenants share an aggregator's work by their weights: what a flood costs another is its share of it, and no more."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.shares import LEAST, RECORD, TURN, Shares
from schemas.facts import TenantSet
from schemas.sharing import Tenant
from schemas.topics import GLOBAL, topic
from streams.processor import Pause, Resume, send
from tests.plane import NS
from tests.processors.test_order import A, B, C, Ordered
from tests.processors.test_scheduled_plane import GARBAGE, plane, schedule, to_the_end

MB = 2**20

# ------------------------------------------------------------------ the pure part


def serve(shares: Shares, rates: dict[str, int], size: int, records: int) -> dict[str, int]:
    """Whoever does not wait is served in turn, `rates` records each time; all have always something to read. Records by tenant."""
    names, served = set(rates), dict.fromkeys(rates, 0)
    waits = shares.decide(names, names)
    while sum(served.values()) < records:
        for t in sorted(names):
            for _ in range(rates[t] if t not in waits else 0):
                served[t] += 1
                if shares.served(t, size):
                    waits = shares.decide(names, names)
                    if t in waits:
                        break
    return served


TENANTS = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 12), min_size=2)
WEIGHTS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from([0.5, 1.0, 3.0]))


@given(TENANTS, WEIGHTS, st.sampled_from([1, 300_000]), st.sampled_from([LEAST, TURN]))
def test_however_much_more_one_sends_all_are_served_by_their_weights(rates, weights, size, turn):
    shares = Shares(turn)
    shares.weights = weights
    cost = size + RECORD
    served = serve(shares, rates, size, 4 * turn * len(rates) // cost)
    had = {t: n * cost / weights.get(t, 1.0) for t, n in served.items()}
    least = min(weights.get(t, 1.0) for t in rates)
    assert max(had.values()) - min(had.values()) <= (turn + max(rates.values()) * cost) / least


def test_nobody_waits_where_all_come_in_at_their_shares():
    shares = Shares(LEAST)
    serve(shares, {"a": 1, "b": 1}, 1000, 10_000)
    assert shares.ahead == frozenset()
    flooded = Shares(LEAST)
    serve(flooded, {"a": 9, "b": 1}, 1000, 2_000)
    assert flooded.ahead == {"a"}  # the control


def test_who_has_nothing_to_read_makes_nobody_wait_and_saves_up_nothing():
    shares = Shares(LEAST)
    assert not shares.decide({"a", "b"}, {"a"})
    for _ in range(100):
        assert not shares.served("a", MB)
    assert not shares.decide({"a", "b"}, {"a", "b"})
    assert [shares.served("a", MB) for _ in range(4)] == [False, False, False, True]
    assert shares.decide({"a", "b"}, {"a", "b"}) == {"a"}
    assert shares.decide({"a", "b"}, {"a"}) == frozenset()  # b has no more
    for _ in range(100):
        shares.served("a", MB)
    assert not shares.decide({"a", "b"}, {"a", "b"})  # nor has a to make up for what nobody else wanted
    assert not shares.served("b", LEAST - RECORD - 1)


def test_a_light_tenant_s_turn_is_not_so_short_that_it_reads_all_twice():
    shares = Shares(TURN)
    shares.weights = {"light": 0.001}
    names = {"light", "heavy"}
    assert not shares.decide(names, names)
    n = 0
    while not shares.decide(names, names):
        shares.served("light", MB - RECORD)
        n += 1
    assert n == LEAST // MB


# ------------------------------------------------------------------ a plane in memory

COST = RECORD + len(GARBAGE)
SHORT = 20 * COST
"""A turn of 20 blocks, which are small here."""
QUIET = {"quiet-one": 300}
FLOOD = {f"loud-{n}": 375 for n in range(8)}
"""Ten times as much, in eight tasks: without shares nine blocks are read for each of the quiet tenant's."""


TOGETHER = pytest.mark.xdist_group("shares")  # on one core, or each would simulate what they compare with


@cache
def alone() -> tuple[int, bytes]:
    done, models = to_the_end(plane(work=QUIET))
    return done["quiet-one"], models["quiet-one"]


@cache
def beside(turn: int, weight: float = 1.0) -> tuple[int, bytes]:
    p = plane(work=QUIET | FLOOD, turn=turn)
    if weight != 1.0:
        token = p.hosts["global"].processor.globe.leader.token
        p.memory.append(send(topic(NS, GLOBAL, "ledger"), TenantSet(token, 1, Tenant("quiet", weight))))
        schedule(p)
    done, models = to_the_end(p)
    return done["quiet-one"], models["quiet-one"]


@TOGETHER
def test_a_flood_costs_another_tenant_its_share_and_about_a_turn():
    """Of two tenants each has half: twice the time alone, and up to a turn and a look at the shares more, which the seed decides."""
    time, model = beside(SHORT)
    assert 1.2 * alone()[0] < time <= 1.2 * 2 * alone()[0]
    assert model == alone()[1]


@TOGETHER
def test_without_shares_it_would_cost_as_much_as_it_is():
    """The control."""
    time, model = beside(10**12)
    assert time > 3 * 2 * alone()[0]
    assert model == alone()[1]


@TOGETHER
@pytest.mark.parametrize("weight", [4.0])
def test_who_weighs_more_is_delayed_less(weight: float):
    time, model = beside(SHORT, weight)
    assert (
        time <= 1.1 * (1 + 1 / weight) * alone()[0] + 2_000
    )  # the scheduler says what it weighs once it has heard of the task
    assert time < 0.8 * beside(SHORT)[0]
    assert model == alone()[1]


@pytest.mark.parametrize("blocks", [0, 10_000])
def test_who_was_read_while_nobody_else_had_anything_does_not_pay_for_it_later(blocks: int) -> None:
    """a's blocks are read as they land; then b always has something, and ten of a's wait no longer than a turn of b's."""
    cost = RECORD + 1
    z = Ordered(tenants="xyz", turn=300 * cost)
    z.ends(a=1, b=1, c=1)
    for task in (A, B, C):
        z.read(task, 0)
    end = 1
    for _ in range(blocks // 50):
        z.read(A, *range(end, end + 50))
        end += 50
        z.ends(ms=1_000, a=end, b=1, c=1)
    z.ends(a=end, b=10**6, c=1)
    z.read(B, 1, 2)
    said = z.ends(ms=900, a=end + 10, b=10**6, c=1) + z.ends(ms=100, a=end + 10, b=10**6, c=1)
    if Pause(A, 0) in said:
        assert next(n for n in range(3, 20_000) if Resume(A, 0) in z.read(B, n)) <= 303
