"""Policies by name: the orders they give, what is refused in words, and the defects of Propius' policies that ours must not have."""

import sys
from pathlib import Path

import numpy as np
import pytest

from learning.sharing import policy as registry
from learning.sharing.policy import Job, Market, PolicyFailed, known, plan, policy, unknown
from schemas.sharing import ABILITIES, Rule, Turn, allowed

OURS = ["fifo", "irs", "irs-tiers", "las", "max-min", "random", "reward", "srsf", "srtf"]


@pytest.fixture(autouse=True)
def own(monkeypatch):
    """A registry of this test's own."""
    monkeypatch.setattr(registry, "_known", dict(registry._known))


def market(*jobs: Job, devices=((9.0, 8.0, 1500.0, 12.0, 20.0),) * 3, seed=0) -> Market:
    return Market(jobs, np.array(devices, np.float64).reshape(-1, len(ABILITIES)), {}, {}, seed)


def job(task: str, since: int, wanted: int = 10, got: int = 0, **more) -> Job:
    return Job(**{"task": task, "tenant": "t", "needs": {}, "wanted": wanted, "got": got, "since": since} | more)


THREE = (
    job("a", 1, wanted=300, got=290, of=10, rounds=8, ran_s=400.0, service=900),  # 10 open; 2 rounds of 50 s
    job("b", 2, wanted=20, got=0, of=0, rounds=3, ran_s=70.0, service=60),  # 20 open; not known: 70 s
    job("c", 3, wanted=50, got=15, of=3, rounds=0, ran_s=10.0, service=0),  # 35 open; 3 rounds of 300 s
)


def order(name: str, *jobs: Job, **args) -> list[str]:
    """The tasks of the one rule that holds for all devices."""
    (rule,) = plan(name, args, market(*jobs), "asia", 7).rules
    assert not rule.meets
    assert not rule.lacks
    (turn,) = rule.turns
    return list(turn.tasks)


# ------------------------------------------------------------------ each name means what it says (defect 8)


@pytest.mark.parametrize(
    ("name", "args", "tasks"),
    [
        ("fifo", {}, "abc"),
        ("srsf", {}, "abc"),  # 10, 20, 35
        ("srsf", {"of": "task"}, "bca"),  # 20 + 3 · 20, 35 + 2 · 50, 10 + 300
        ("srtf", {}, "bac"),  # 70, 100, 900
        ("srtf", {"round_s": 20}, "cba"),  # 60, 70, 100
        ("las", {}, "cba"),
    ],
)
def test_the_order_of_a_policy(name, args, tasks):
    assert order(name, *THREE, **args) == list(tasks)


@pytest.mark.parametrize("name", ["fifo", "srsf", "srtf", "las"])
def test_ties_go_by_registration(name):
    assert order(name, job("z", 1), job("a", 2), job("m", 3)) == ["z", "a", "m"]


def test_random_is_by_the_seed_and_stays_when_others_come():
    jobs = [job(f"t{n}", n) for n in range(20)]
    orders = [plan("random", {}, market(*jobs, seed=s), "asia", 1).rules[0].turns[0].tasks for s in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(j.task for j in jobs)
    fewer = plan("random", {}, market(*jobs[::2]), "asia", 1).rules[0].turns[0].tasks
    assert fewer == tuple(t for t in orders[0] if int(t[1:]) % 2 == 0)


def test_reward_leaves_it_to_the_devices():
    made = plan("reward", {}, market(*THREE), "asia", 7)
    assert made.chosen
    assert not made.rules
    assert (made.zone, made.at, made.policy) == ("asia", 7, "reward")
    assert not plan("fifo", {}, market(*THREE), "asia", 7).chosen


def test_all_are_known_and_can_plan_for_nobody():
    assert known() == OURS
    assert [unknown(name, {}) for name in OURS] == [""] * len(OURS)
    for name in OURS:
        assert plan(name, {}, market(devices=()), "asia", 1).rules == ()
        some = plan(name, {}, market(*THREE, devices=()), "asia", 1)
        assert allowed(some, dict.fromkeys(ABILITIES, 1.0), "a"), "no device has been seen yet"


def test_a_name_that_is_not_known_is_refused_and_none_stands_in_for_it():
    """Defect 8: there an unknown one falls back to the abstract base."""
    words = "no sharing policy 'irs3' is known here; known: fifo, irs, irs-tiers, .*start this role with --load"
    with pytest.raises(PolicyFailed, match=words):
        plan("irs3", {}, market(*THREE), "asia", 7)
    assert unknown("irs3", {}).startswith("no sharing policy 'irs3'")


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("fifo", {"of": "round"}, "'fifo' has no setting 'of'; it has none"),
        ("srtf", {"rounds_s": 1.0}, "'srtf' has no setting 'rounds_s'; it has round_s"),
        ("srtf", {"round_s": "long"}, "round_s is like 300.0, not 'long'"),
        ("srtf", {"round_s": float("nan")}, "round_s is a number, not nan"),
        ("srtf", {"round_s": 0}, "round_s is a number of seconds above 0, not 0"),
        ("srsf", {"of": "rounds"}, """of is "round" or "task", not 'rounds'"""),
        ("irs-tiers", {"tiers": True}, "tiers is like 2, not True"),
        ("irs-tiers", {"tiers": 0}, "tiers is a number from 1 to 16, not 0"),
        ("max-min", {"within": "max-min"}, "within is one of fifo, random, srsf, srtf, las, irs, not 'max-min'"),
        ("max-min", {"ahead": 0.0}, "ahead is above 0 and at most 1, not 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_there_are_jobs(name, args, words):
    assert words in unknown(name, args)
    with pytest.raises(PolicyFailed):
        plan(name, args, market(*THREE), "asia", 7)


# ------------------------------------------------------------------ the other defects that are of policies


@pytest.mark.parametrize("name", OURS)
def test_a_plan_serves_the_last_device_as_it_does_the_first(name):
    """Defect 5: there the list of jobs is an iterator that the first client of a pass consumes."""
    made = plan(name, {}, market(*THREE), "asia", 7)
    device = dict(zip(ABILITIES, (9.0, 8.0, 1500.0, 12.0, 20.0), strict=True))
    for _ in range(1000):
        assert all(allowed(made, device, j.task) for j in THREE)


def test_one_s_own_may_be_a_generator():
    @policy("lazy")
    def lazy(settings, market):
        yield Rule(turns=(Turn(1.0, tuple(j.task for j in market.jobs)),))

    assert len(plan("lazy", {}, market(*THREE), "asia", 7).rules) == 1


@pytest.mark.parametrize("name", OURS)
def test_a_group_whose_jobs_are_full_is_left_out_and_the_others_are_planned(name):
    """Defect 6: there removing a job while iterating ends the pass in a KeyError, after the groups were cleared."""
    groups = [{}, {"cpu": 5.0}, {"cpu": 9.0}, {"cpu": 99.0}]
    jobs = [
        job(f"{n}-{k}", 4 * n + k, got=10 * (n % 2), needs=needs) for n, needs in enumerate(groups) for k in range(4)
    ]
    made = plan(name, {}, market(*jobs), "asia", 7)
    if name != "reward":
        listed = {task for rule in made.rules for turn in rule.turns for task in turn.tasks}
        assert listed == {j.task for j in jobs if j.open}


@pytest.mark.parametrize("name", [n for n in OURS if n != "reward"])
def test_neither_jobs_nor_devices_are_paged(name):
    """Defect 7: there 100 jobs and 1,000 clients are seen in a pass, and those of one database only."""
    weak, strong = (1.0, 2.0, 400.0, 6.0, 5.0), (9.0, 8.0, 1500.0, 12.0, 20.0)
    jobs = [job(f"j{n}", n, needs={"cpu": 5.0} if n % 2 else {}) for n in range(250)]
    made = plan(name, {}, market(*jobs, devices=[weak] * 5000 + [strong]), "asia", 7)
    device = dict(zip(ABILITIES, strong, strict=True))
    assert all(allowed(made, device, j.task) for j in jobs)


def test_the_5001st_device_counts():
    """Defect 7, of the window: the one device that can serve a group comes after thousands."""
    weak, strong = (1.0, 2.0, 400.0, 6.0, 5.0), (9.0, 8.0, 1500.0, 12.0, 20.0)
    a, b = job("all", 1, wanted=1000), job("few", 2, wanted=1, needs={"cpu": 5.0})
    seen = plan("irs", {}, market(a, b, devices=[weak] * 5000 + [strong]), "asia", 7)
    assert seen.rules[-1].turns[0].tasks == ("few", "all"), "it is the scarcer, though none of the first 5,000 tells"


# ------------------------------------------------------------------ one's own


def test_one_s_own_with_settings():
    @policy("mine", settings={"bias": 0.5})
    def mine(settings, market):
        return [Rule(turns=(Turn(settings["bias"], ("a",)), Turn(1 - settings["bias"], ("b",))))]

    made = plan("mine", {"bias": 0.25}, market(*THREE), "asia", 7)
    assert [t.share for t in made.rules[0].turns] == [0.25, 0.75]
    assert "mine" in known()


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("irs", {}, "there is a sharing policy 'irs' already"),
        ("My own", {}, "a policy's name has a-z, 0-9 and '-'"),
        ("new", {"list": [1]}, r"settings are text, numbers or yes and no, and list is \[1\]"),
    ],
)
def test_a_registration_that_cannot_be(name, settings, words):
    with pytest.raises(ValueError, match=words):
        policy(name, settings)


def gives(*rules) -> str:
    """Why such rules are refused."""
    registry._known["bad"] = registry._Known(lambda settings, market: rules if len(market.jobs) else (), {})
    with pytest.raises(PolicyFailed) as e:
        plan("bad", {}, market(*THREE), "asia", 7)
    return str(e.value)


def turns(*of: tuple[float, str], **more) -> Rule:
    return Rule(turns=tuple(Turn(share, tuple(tasks)) for share, tasks in of), **more)


def test_what_a_policy_must_not_give():
    fine = turns((1.0, "abc"))
    assert "rule 1: 'z' is no task that wants devices" in gives(fine, turns((1.0, "az")))
    assert "rule 0: the shares of its turns add up to 0.9, not to 1" in gives(turns((0.5, "a"), (0.4, "b")))
    assert "rule 0: the shares of its turns add up to 0, not to 1" in gives(Rule(turns=()))
    assert "rule 0: a turn names a task twice" in gives(turns((1.0, "aa")))
    assert "gpu is nothing devices report" in gives(turns((1.0, "a"), meets=({"gpu": 1.0},)))
    assert "gave what is no list of rules" in gives("a")
    assert "gave what is no list of rules" in gives(turns((-0.5, "a"), (1.5, "b")))
    assert "gave what is no list of rules" in gives(Rule(turns=(Turn(1.0, filter(None, ["a"])),)))
    assert "bytes, and no more than" in gives(*[fine] * 50_000)


def test_what_a_policy_must_not_do():
    @policy("raises")
    def raises(settings, market):
        return market.jobs[0].gone

    @policy("writes")
    def writes(settings, market):
        market.devices[:] = 0
        return []

    @policy("says")
    def says(settings, market):
        raise ValueError("there must be two tasks")

    assert "'raises' failed: IndexError" in unknown("raises", {})
    asked = market(*THREE)
    with pytest.raises(PolicyFailed, match="'raises' failed: AttributeError: 'Job' object has no attribute 'gone'"):
        plan("raises", {}, asked, "asia", 7)
    with pytest.raises(PolicyFailed, match="'writes': assignment destination is read-only"):
        plan("writes", {}, asked, "asia", 7)
    assert asked.devices.all()
    assert asked.devices.flags.writeable
    assert unknown("says", {}) == "sharing policy 'says': there must be two tasks"


def test_it_may_come_in_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "somebodys_policy.py").write_text(
        "from schemas.sharing import Rule, Turn\n"
        "def latest(settings, market):\n"
        "    tasks = tuple(j.task for j in sorted(market.jobs, key=lambda j: -j.since))\n"
        "    return [Rule(turns=(Turn(share=1.0, tasks=tasks),))]\n"
    )
    info = tmp_path / "somebodys_policy-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-policy\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[olearning.policies]\nlatest = somebodys_policy:latest\ngone = somebodys_policy:gone\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert {"latest", "gone"} <= set(known())
    assert order("latest", *THREE) == ["c", "b", "a"]
    assert "'gone' of olearning.policies cannot be imported from somebodys_policy:gone" in unknown("gone", {})
    sys.modules.pop("somebodys_policy")


def test_the_page_s_example_works_as_it_stands():
    page = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    exec(compile(code, "my_policy.py", "exec"), {})
    assert order("youngest", *THREE, most=2) == ["c", "b"]
    for name in OURS:
        assert f"| `{name}` |" in page
