"""IRS against the worked examples of Venn's paper sheet, and what must hold for all markets."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.sharing import maxmin
from learning.sharing.groups import fitting, supply
from learning.sharing.irs import owners
from learning.sharing.policy import Job, Market, known, plan
from learning.sharing.tiers import pays
from schemas.sharing import ABILITIES, SharingPlan, meets

RULES = [name for name in known() if name not in ("reward", "irs-tiers")]


def market(
    window: dict[tuple[float, ...], int], queues: dict[str, tuple[tuple[float, ...], list[int]]], **more
) -> Market:
    """`window`: how many devices have these abilities; `queues`: by group its needs, and what its jobs want."""
    devices = np.array([_five(a) for a, count in window.items() for _ in range(count)]).reshape(-1, 5)
    jobs, since = [], 0
    for group, (needs, demands) in queues.items():
        for wanted in demands:
            jobs.append(Job(f"{group.lower()}-{wanted}", "t", _bounds(needs), wanted, 0, since, **more))
            since += 1
    return Market(jobs, devices, {}, {})


def _five(amounts) -> tuple[float, ...]:
    return (*map(float, amounts), *([0.0] * (5 - len(amounts))))


def _bounds(amounts) -> dict[str, float]:
    return {name: float(a) for name, a in zip(ABILITIES, amounts, strict=False) if a}


def owner_of(of: Market) -> dict[str, str]:
    """By signature, its groups' names, the group whose tasks its devices take first; by the rules alone."""
    found = {}
    made = plan("irs", {}, of, "z", 1)
    for row, n in zip(of.devices, fitting(made.rules, of.devices), strict=True):
        able = [j.task for j in of.jobs if meets(dict(zip(ABILITIES, row, strict=True)), j.needs)]
        first = next(task for task in made.rules[n].turns[0].tasks if task in able)
        found["".join(sorted({t[0] for t in able})).upper()] = first[0].upper()
    return found


NESTED = {(9,): 400, (5,): 350, (1,): 250}  # {G,M,P}, {G,M}, {G}
P, M, G = (9,), (5,), (1,)


def test_example_a_nested():
    of = market(NESTED, {"P": (P, [60, 100, 140, 200]), "M": (M, [50, 100]), "G": (G, [20, 30, 50, 100, 200, 400])})
    assert owner_of(of) == {"GMP": "P", "GM": "G", "G": "G"}


def test_example_b_the_abundant_group_takes_both():
    of = market(NESTED, {"P": (P, [100]), "M": (M, [50, 100]), "G": (G, [20, 30, 50, 100, 200, 400])})
    assert owner_of(of) == {"GMP": "G", "GM": "G", "G": "G"}


# A needs cpu, B ram, G os
CROSSED = {(5, 0, 0, 5): 200, (0, 5, 0, 5): 250, (5, 5, 0, 5): 100, (5,): 50, (0, 0, 0, 5): 300}
QUEUES = {"A": ((5,), [100]), "B": ((0, 5), [80, 120]), "G": ((0, 0, 0, 5), [20, 30, 40, 50, 60, 70, 80, 90])}


def test_example_c_not_nested_a_group_takes_only_what_it_may_use():
    of = market(CROSSED, QUEUES)
    assert owner_of(of) == {"AG": "G", "BG": "G", "ABG": "G", "A": "A", "G": "G"}
    found = supply(of)
    assert all(signature[owner] for signature, owner in zip(found.member, owners(found), strict=True))


def test_control_with_a_shorter_queue_nothing_is_taken():
    of = market(CROSSED, QUEUES | {"G": ((0, 0, 0, 5), [20])})
    assert owner_of(of) == {"AG": "A", "BG": "B", "ABG": "A", "A": "A", "G": "G"}


def test_inside_a_group_the_least_that_is_wanted_goes_first_then_registration():
    of = market(NESTED, {"G": (G, [200, 30, 100])})
    same = [*of.jobs, replace(of.jobs[0], task="late", since=9), replace(of.jobs[0], task="got", got=150, since=10)]
    tasks = plan("irs", {}, replace(of, jobs=same), "z", 1).rules[0].turns[0].tasks
    assert tasks == ("g-30", "got", "g-100", "g-200", "late")


def test_groups_that_the_same_devices_can_serve_are_one_supply():
    """A tie would leave the loser nothing; their queues are one."""
    of = market({(9, 8): 100}, {"A": ((5,), [10, 90]), "B": ((0, 5), [40, 50])})
    (rule,) = plan("irs", {}, of, "z", 1).rules
    assert rule.turns[0].tasks == ("a-10", "b-40", "b-50", "a-90")
    assert len(supply(of).groups) == 1


def test_a_device_that_was_never_seen_is_served_by_the_scarcest_it_can_serve():
    of = market(CROSSED, QUEUES | {"N": ((0, 0, 99), [5])})
    made = plan("irs", {}, of, "z", 1)
    for abilities, first in [((5, 0, 99, 5), "N"), ((5, 5), "A"), ((0, 5), "B"), ((0, 0, 99), "N")]:
        device = dict(zip(ABILITIES, _five(abilities), strict=True))
        rule = next(r for r in made.rules if r.fits(device))
        tasks = [t for t in rule.turns[0].tasks if meets(device, next(j.needs for j in of.jobs if j.task == t))]
        assert tasks[0][0] == first.lower()


def test_of_groups_that_no_device_of_the_window_can_serve_the_stricter_comes_first():
    of = market(NESTED, {"G": (G, [5]), "X": ((80,), [5]), "Y": ((90,), [50])})
    assert plan("irs", {}, of, "z", 1).rules[-1].turns[0].tasks == ("y-50", "x-5", "g-5")


# ------------------------------------------------------------------ all markets

amounts = st.sampled_from([0.0, 1.0, 2.0, 3.0])
needs_of = st.dictionaries(st.sampled_from(ABILITIES), st.sampled_from([1.0, 2.0, 3.0]), max_size=3)


@st.composite
def markets(draw) -> Market:
    devices = draw(st.lists(st.tuples(*[amounts] * 5), max_size=25))
    kinds = draw(st.lists(needs_of, min_size=1, max_size=5))
    jobs = [
        Job(
            f"j{n}",
            draw(st.sampled_from("tuv")),
            needs,
            wanted,
            got,
            n,
            rounds=1,
            of=5,
            ran_s=9.0 * n,
            service=n,
            **past,
        )
        for n, (needs, wanted, got, past) in enumerate(
            draw(
                st.lists(
                    st.tuples(
                        st.sampled_from(kinds),
                        st.integers(1, 50),
                        st.integers(0, 50),
                        st.sampled_from([{}, {"fill_s": 10.0, "serve_s": 300.0}, {"fill_s": 100.0, "serve_s": 90.0}]),
                    ),
                    max_size=9,
                )
            )
        )
    ]
    weights = dict(zip("tuv", draw(st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=3, max_size=3)), strict=True))
    granted = dict(zip("tuv", draw(st.lists(st.integers(0, 40), min_size=3, max_size=3)), strict=True))
    return Market(jobs, np.array(devices).reshape(-1, 5), weights, granted, draw(st.integers(0, 9)))


def offered(made: SharingPlan, device: dict[str, float], jobs: list[Job], turn: int) -> list[str]:
    """What this device would take, in order, in one of the turns of its rule."""
    rule = next((r for r in made.rules if r.fits(device)), None)
    if rule is None:
        return []
    can = {j.task for j in jobs if meets(device, j.needs)}
    return [task for task in rule.turns[turn % len(rule.turns)].tasks if task in can]


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=60)
@given(of=markets(), stranger=st.tuples(*[amounts] * 5), turn=st.integers(0, 3))
def test_no_device_waits_that_could_serve_somebody(name, of, stranger, turn):
    """Seen or not, in whichever turn, it is offered all open jobs that it can serve."""
    made = plan(name, {}, of, "z", 1)
    open_jobs = [j for j in of.jobs if j.open]
    for row in [*of.devices, stranger]:
        device = dict(zip(ABILITIES, map(float, row), strict=True))
        could = {j.task for j in open_jobs if meets(device, j.needs)}
        assert set(offered(made, device, open_jobs, turn)) == could


@pytest.mark.parametrize("name", ["irs", "irs-tiers", "max-min"])
@settings(max_examples=40)
@given(of=markets(), random=st.randoms(use_true_random=False))
def test_the_same_market_has_the_same_plan_in_whatever_order_it_is_told(name, of, random):
    jobs, rows = list(of.jobs), list(of.devices)
    random.shuffle(jobs)
    random.shuffle(rows)
    shuffled = replace(of, jobs=jobs, devices=np.array(rows).reshape(-1, 5))
    assert plan(name, {}, of, "z", 1) == plan(name, {}, shuffled, "z", 1) == plan(name, {}, of, "z", 1)


@settings(max_examples=100)
@given(of=markets())
def test_each_signature_has_an_owner_that_may_use_it(of):
    if not (found := supply(of)).groups:
        return
    for signature, owner in zip(found.member, owners(found), strict=True):
        assert signature[owner]
    assert int(found.count.sum()) == sum(
        any(meets(dict(zip(ABILITIES, row, strict=True)), j.needs) for j in of.jobs if j.open) for row in of.devices
    )


@settings(max_examples=100)
@given(of=markets())
def test_max_min_leaves_out_no_rule_that_changes_what_a_device_that_was_seen_gets(of):
    short = plan("max-min", {}, of, "z", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maxmin, "_few", lambda made: [rule for _, _, rule in made])
        long = plan("max-min", {}, of, "z", 1)
    if not long.rules:
        return
    a, b = (fitting(made.rules, of.devices) for made in (short, long))
    assert [short.rules[n].turns for n in a] == [long.rules[n].turns for n in b]


@settings(max_examples=100)
@given(of=markets())
def test_the_rules_say_what_the_owners_are(of):
    """For each device that was seen, its owner's tasks come first."""
    if not (found := supply(of)).groups:
        return
    made = plan("irs", {}, of, "z", 1)
    owner = owners(found)
    for row, s, n in zip(of.devices, found.of, fitting(made.rules, of.devices), strict=True):
        if s >= 0:
            device = dict(zip(ABILITIES, row, strict=True))
            assert made.rules[n].fits(device)
            tasks = [
                t for t in made.rules[n].turns[0].tasks if meets(device, next(j.needs for j in of.jobs if j.task == t))
            ]
            mine = [t for t in found.groups[owner[s]].tasks if t in tasks]
            assert tasks[: len(mine)] == mine


def told(window: dict[frozenset[int], int], asc: list[int], queue: dict[int, list[int]]) -> dict[frozenset[int], int]:
    """The sheet's pseudocode as it stands, with sets and loops: by signature its owner."""
    owner = {s: next(g for g in asc if g in s) for s in window}
    real = {g: sum(window[s] for s in window if owner[s] == g) for g in asc}
    a = lambda g: max(1, real[g])  # noqa: E731
    dem, q, merged = {g: list(queue[g]) for g in asc}, {g: len(queue[g]) for g in asc}, set()
    res = {g: [a(g)] * len(dem[g]) for g in asc}
    delay = lambda g: sum(d / r for d, r in zip(dem[g], res[g], strict=True))  # noqa: E731

    def affected(g, limit):
        if delay(g) <= limit:
            return len(dem[g])
        total, count = 0.0, 0
        for d, r in zip(dem[g], res[g], strict=True):
            total += d / r
            if not total < limit:
                break
            count += 1
        return count

    for i in range(len(asc) - 1, -1, -1):
        g = asc[i]
        if g in merged:
            continue
        for h in reversed(asc[:i]):
            if h in merged:
                continue
            mine = [s for s in window if owner[s] == h and g in s]
            take = sum(window[s] for s in mine)
            if take == 0:
                continue
            if not affected(g, delay(h)) / a(g) > q[h] / a(h):
                break
            for s in mine:
                owner[s] = g
            real[g] += take
            real[h] -= take
            res[g] = [r + take for r in res[g]]
            if real[h] == 0:
                res[g], dem[g] = res[g] + res[h], dem[g] + dem[h]
                q[g] += q[h]
                merged.add(h)
            else:
                res[h] = [a(h)] * len(dem[h])
    return owner


@settings(max_examples=400)
@given(
    counts=st.lists(st.tuples(st.integers(1, 15), st.integers(1, 300)), min_size=1, max_size=9),
    demands=st.lists(st.lists(st.integers(1, 400), min_size=1, max_size=5), min_size=4, max_size=4),
)
def test_it_does_what_the_sheet_s_pseudocode_does(counts, demands):
    """Four groups, each with a need of its own, so that a device's abilities are any signature."""
    window = {_five([n >> k & 1 for k in range(4)]): count for n, count in counts}
    of = market(window, {"wxyz"[k]: (_five([k == n for n in range(4)]), sorted(d)) for k, d in enumerate(demands)})
    of = replace(of, jobs=[replace(j, task=f"{j.task}-{n}") for n, j in enumerate(of.jobs)])
    found = supply(of)
    asc = [g for g, group in enumerate(found.groups) if group.eligible]
    signatures = [frozenset(np.flatnonzero(s).tolist()) for s in found.member]
    window_of = dict(zip(signatures, found.count.tolist(), strict=True))
    must = told(window_of, asc, {g: [j.open for j in found.groups[g].jobs] for g in asc})
    assert dict(zip(signatures, owners(found).tolist(), strict=True)) == must


# ------------------------------------------------------------------ tiers


def test_when_a_tier_pays():
    """V = 2, g = 120/274, response 274 s: after 60 s of scheduling 4.000 < 5.567, after 200 s 2.600 > 2.370."""
    assert pays(2, 120 / 274, 274, 60)
    assert not pays(2, 120 / 274, 274, 200)


def tiered(job: Job, *others: Job, seed: int = 0, tiers: int = 2) -> tuple[SharingPlan, list[tuple[str, ...]]]:
    """Ten devices of CPU scores 1 to 10: what each is offered."""
    of = Market([job, *others], np.array([_five((cpu, 4)) for cpu in range(1, 11)]), {}, {}, seed)
    made = plan("irs-tiers", {"tiers": tiers}, of, "z", 1)
    devices = [dict(zip(ABILITIES, row, strict=True)) for row in of.devices]
    return made, [tuple(offered(made, device, list(of.jobs), 0)) for device in devices]


SLOW = Job("first", "t", {"ram": 4.0}, 5, 0, 1, fill_s=10.0, serve_s=300.0)
NEXT = Job("next", "t", {"ram": 4.0}, 50, 0, 2)


def test_the_first_job_has_one_tier_and_the_next_the_others():
    seen = set()
    for seed in range(8):
        _, offers = tiered(SLOW, NEXT, seed=seed)
        fast = tuple(offer[0] == "first" for offer in offers)
        seen.add(fast)
        assert all(offer in (("first", "next"), ("next",)) for offer in offers)
    assert seen == {(False,) * 5 + (True,) * 5, (True,) * 10}, (
        "by the seed the faster half; the slowest tier never pays"
    )
    assert tiered(SLOW, NEXT)[1] == tiered(SLOW, NEXT)[1]


def test_a_tier_is_drawn_anew_for_each_round():
    rounds = {tuple(o[0] for o in tiered(replace(SLOW, round=r), NEXT)[1]) for r in range(12)}
    assert len(rounds) == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"fill_s": 0.0, "serve_s": 0.0}, "no round is done yet"),
        ({"fill_s": 300.0}, "scheduling takes as long as the response"),
        ({"deadline_s": 310.0}, "restricted it would miss its deadline"),
        ({"fill_within_s": 60.0, "waits_s": 31.0}, "half of the scheduling time-out is over"),
        ({"deadline_s": 86_400.0, "waits_s": 43_201.0}, "where there is none: half of the time until the deadline"),
    ],
)
def test_no_tier(change, why):
    made, offers = tiered(replace(SLOW, **change), NEXT)
    assert offers == [("first", "next")] * 10, why
    assert len(made.rules) == 1


def test_with_one_tier_it_is_irs():
    of = market(CROSSED, QUEUES, fill_s=10.0, serve_s=300.0)
    assert plan("irs-tiers", {"tiers": 1}, of, "z", 1).rules == plan("irs", {}, of, "z", 1).rules
    of = market(NESTED, {"G": (G, [20, 30])}, fill_s=10.0, serve_s=300.0)
    assert any(len(plan("irs-tiers", {}, replace(of, seed=seed), "z", 1).rules) > 1 for seed in range(8)), (
        "and two are not"
    )


def test_a_tier_is_of_the_devices_that_the_group_has():
    """Those of a scarcer group do not count: their speeds would shift the bound."""
    scarce = [Job(f"scarce-{n}", "t", {"cpu": 7.0}, 5, 0, 3 + n) for n in range(9)]
    counts = set()
    for seed in range(8):
        _, offers = tiered(SLOW, NEXT, *scarce, seed=seed)
        assert [offer[0] for offer in offers[6:]] == ["scarce-0"] * 4
        counts.add(sum(offer[0] == "first" for offer in offers[:6]))
    assert counts == {3, 6}
