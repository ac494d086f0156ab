"""Devices under a plan: which task they take, what they leave alone, and what they tell nobody."""

from collections import Counter
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from device_sim.device import Device, Habit
from device_sim.fleet import Fleet
from device_sim.job import Begin, Train
from schemas.messages import Ref, Refusal
from schemas.sharing import PLAN, Needs, Rule, SharingPlan, Turn
from schemas.topics import read, topic
from streams.processor import send
from tests.device_sim.test_device import MINUTE, World, round_of
from tests.device_sim.test_fleet import NS, Edge, Learner, P, Z


def planned(*rules: Rule, at: int = 1, zone: str = "z", chosen: bool = False) -> SharingPlan:
    return SharingPlan(zone, at, "mine", rules, chosen)


def all_take(*tasks: str) -> Rule:
    return Rule((Turn(1.0, tasks),))


class Planned(World):
    def plan(self, *rules: Rule, **more: Any) -> None:
        self.boards["z"].plan = plan = planned(*rules, **more)
        self.device.planned(plan, self.now)

    def refuse(self, task: str, ms: int) -> None:
        self.device.refused("z", Refusal("x", task, 1, "the plan", ms, Ref("z", 1)), self.now)


def test_it_takes_the_first_task_of_its_turn_whatever_it_is_worth():
    w = Planned()
    w.plan(all_take("b", "a"))
    w.announce(round_of("a", reward=1.0), round_of("b", reward=0.001))
    assert w.wishes(0) == ["b"]


def test_chance_does_not_go_before_the_plan_s_order():
    """A device reacts to each round after a time of its own, and under a plan to all alike."""
    for k in range(30):
        w = Planned()
        w.device.id, w.device.habit = f"d-{k}", Habit(reaction=1_000)
        w.plan(all_take("b", "a"))
        w.announce(round_of("a"), round_of("b"))
        assert w.wishes(0) == []
        assert w.wishes() == ["b"]
        assert 0 < w.now < 1_000


def test_one_at_a_time_and_the_next_when_that_is_over():
    w = Planned()
    w.plan(all_take("b", "a"))
    w.announce(round_of("a"), round_of("b"))
    assert w.wishes(0) == ["b"]
    w.admit("b")
    assert isinstance(w.until(Begin), Begin)
    w.until(Train)
    w.trained(w.job("b"), blocks=1)
    assert w.wishes() == ["a"], "uploaded, and on it goes"


def test_when_its_round_is_over_it_stops_and_takes_the_next_of_its_turn():
    w = Planned()
    w.plan(all_take("b", "a"))
    w.announce(round_of("a"), round_of("b"))
    w.wishes(0)
    w.admit("b")
    w.until(Begin)
    w.announce(replace(round_of("b", open=False), cause=Ref("z", 2)))
    assert w.device.running is None
    assert w.wishes() == ["a"]


def test_what_is_not_open_or_not_in_the_plan_is_passed_over():
    w = Planned()
    w.plan(all_take("gone", "shut", "b"))
    w.announce(round_of("shut", open=False), round_of("b"), round_of("c"))
    assert w.wishes(0) == ["b"]


def test_what_does_not_fit_its_window_or_the_deadline_is_passed_over():
    w = Planned([(0, int(1.5 * MINUTE))])
    w.plan(all_take("late", "b"))
    w.announce(round_of("late", deadline=MINUTE - 1), round_of("b", deadline=MINUTE))
    assert w.wishes(0) == ["b"]
    w = Planned([(0, MINUTE - 1)])
    w.plan(all_take("b"))
    w.announce(round_of("b"))
    assert w.wishes(0) == []


def test_the_first_rule_that_fits_holds_and_if_none_does_it_waits():
    rules = (Rule((Turn(1.0, ("strong",)),), ({"ram": 8.0},)), Rule((Turn(1.0, ("weak",)),), ({"ram": 2.0},)))
    for ram, takes in ((8.0, ["strong"]), (4.0, ["weak"]), (1.0, [])):
        w = Planned(abilities={"ram": ram})
        w.plan(*rules)
        w.announce(round_of("strong"), round_of("weak"))
        assert w.wishes(0) == takes


def test_turns_are_drawn_by_their_shares_once_a_plan():
    rule = Rule((Turn(0.25, ("a",)), Turn(0.75, ("b",))))
    drawn: Counter[str] = Counter()
    for k in range(400):
        w = Planned()
        w.device.id = f"d-{k}"
        w.plan(rule)
        w.announce(round_of("a"), round_of("b"))
        (task,) = w.wishes(0)
        drawn[task] += 1
        if k < 20:
            w.refuse(task, 1_000)
            assert w.wishes(500) == []
            assert w.wishes(1_000) == [task], "the same throw for the same plan"
    assert 70 < drawn["a"] < 130


def test_another_plan_is_another_throw_and_wakes_those_that_wait():
    w = Planned()
    w.device.habit = Habit(reaction=0)
    w.plan(Rule(()))
    w.announce(round_of("a"))
    assert w.wishes(0) == []
    before = w.device.next
    w.now = 700
    w.plan(all_take("a"), at=2)
    assert w.device.next <= 700 < before
    assert w.wishes() == ["a"]
    w.plan(all_take("a"), at=3)
    assert w.device.next > 700, "who works looks when it is done"


def test_who_is_refused_because_of_the_plan_looks_again_after_the_retry_window():
    w = Planned()
    w.plan(all_take("a"))
    w.announce(round_of("a"))
    w.wishes(0)
    w.refuse("a", 3_000)
    assert w.wishes() == []
    assert w.device.next == 3_000
    assert w.wishes() == ["a"]


def test_in_another_zone_another_plan_holds():
    w = Planned()
    w.device.planned(planned(all_take("a"), zone="y"), 0)
    w.boards["y"].plan = planned(all_take("nothing"), zone="y")
    w.announce(round_of("a"))
    assert w.wishes(0) == ["a"], "by reward: here is no plan"


@pytest.mark.parametrize("chosen", [True, False])
def test_needs_that_it_does_not_meet_keep_it_away(chosen):
    needs = {
        "public": Needs(public={"ram": 6.0}),
        "samples": Needs(private={"samples": 11.0}),
        "unheard": Needs(private={"moon": 1.0}),
        "charge": Needs(private={"charge": 0.5}),
        "fits": Needs(public={"ram": 4.0}, private={"samples": 10.0, "charge": 0.4}),
    }
    w = Planned(abilities={"ram": 4.0}, private={"charge": 0.45})
    w.plan(*(() if chosen else (all_take(*needs),)), chosen=chosen)
    w.announce(*(round_of(task, needs=n) for task, n in needs.items()))
    assert w.wishes(0) == ["fits"]


def test_without_a_plan_the_knapsack_chooses_among_what_it_can_do():
    w = Planned([(0, int(1.5 * MINUTE))])
    w.announce(round_of("best", reward=0.9, needs=Needs(private={"samples": 99.0})), round_of("good", reward=0.5))
    assert w.wishes(0) == ["good"]


# ------------------------------------------------------------------ behind an edge


class Zone(Edge):
    def __init__(self, devices: list[Device]):
        super().__init__(devices, Learner())

    def plan(self, plan: SharingPlan) -> None:
        for p in range(P):
            self.memory.append(send(topic(NS, Z, "announcements"), plan, PLAN, p))

    def need(self, needs: Needs) -> None:
        """Announce again what was announced last, with these needs."""
        last = self.memory.records(topic(NS, Z, "announcements").name, 0)[-1]
        a = read(last.topic, last.value, last.headers)
        a = replace(a, needs=needs, cause=Ref("ledger-z", a.cause.offset + 1))
        for p in range(P):
            self.memory.append(send(topic(NS, Z, "announcements"), a, "t", p))


def test_abilities_are_in_check_ins_and_what_is_asked_for_in_registrations():
    """No more than that: a description as long as it could be would tell which of its pseudonyms are one device."""
    phone = {"ram": 4.0, "cpu": 7.0, "os": 11.0}
    e = Zone([Device("a", 0, abilities=phone), Device("b", 1)])
    e.announce()
    e.run()
    assert {c.device: c.abilities for c in e.said("checkins")} == {e.name("a", ""): phone, e.name("b", ""): {}}
    assert {w.device: w.abilities for w in e.wishes()} == {e.name("a"): {}, e.name("b"): {}}
    e = Zone([Device("a", 0, abilities=phone)])
    e.plan(planned(Rule((Turn(1.0, ("t",)),), ({"ram": 4.0},), ({"os": 12.0},)), at=7))
    e.announce()
    e.run()
    assert [w.abilities for w in e.wishes()] == [{"ram": 4.0, "os": 11.0}]


def test_a_fleet_hears_plans_and_older_ones_change_nothing():
    e = Zone([Device("a", 0, abilities={"ram": 4.0}), Device("b", 1)])
    e.plan(planned(Rule((Turn(1.0, ("t",)),), ({"ram": 4.0},)), at=7))
    e.announce()
    e.run()
    assert [w.device for w in e.wishes()] == [e.name("a")]
    e.plan(planned(all_take("t"), at=6))
    e.run()
    assert len(e.wishes()) == 1
    e.plan(planned(all_take("t"), at=8))
    e.run()
    assert {w.device for w in e.wishes()} == {e.name("a"), e.name("b")}
    fleet = e.host.processor
    assert isinstance(fleet, Fleet)
    assert fleet.boards[Z].plan.at == 8  # type: ignore[union-attr]


def test_what_a_device_has_of_private_needs_is_in_no_record_that_a_fleet_sends():
    """Every record after the test's own, of the devices that take part and of the one that does not. How many samples a delta has is
    in the delta, of those that send one: its weight (FedAvg). Nothing else says it."""
    secret = {"charge": 0.7310585786, "years": 37.25}
    devices = [Device(f"phone-{i}", i, private=secret, abilities={"ram": 4.0}) for i in range(2)]
    devices.append(Device("phone-2", 2, private=secret | {"charge": 0.1234567891}, abilities={"ram": 4.0}))
    e = Zone(devices)
    e.announce()
    e.need(Needs(private={"charge": 0.5, "years": 18.0, "samples": 5.0}))
    before = {(name, p): len(log) for name, logs in e.memory.topics.items() for p, log in enumerate(logs)}
    e.run()
    assert {w.device for w in e.wishes()} == {e.name("phone-0"), e.name("phone-1")}
    for i in range(2):
        e.answer(f"phone-{i}", slot=i)
    e.run(3_000)
    assert e.deltas()
    said = [
        r.value
        for name, logs in e.memory.topics.items()
        for p, log in enumerate(logs)
        for r in log[before[name, p] :]
        if "admissions" not in name
    ]
    assert len(said) > 6
    for value in said:
        assert not set(numbers(msgspec.msgpack.decode(value))) & {*secret.values(), 0.1234567891}
        assert not any(word in value for word in (b"charge", b"years"))
    by_device = {r.key for name, logs in e.memory.topics.items() for log in logs for r in log if "deltas" in name}
    assert e.name("phone-2") not in by_device


def numbers(x: Any) -> Any:
    """All numbers in what was decoded."""
    if isinstance(x, dict):
        for k, v in x.items():
            yield from numbers(k)
            yield from numbers(v)
    elif isinstance(x, list):
        for v in x:
            yield from numbers(v)
    elif isinstance(x, int | float):
        yield x


def test_wishes_are_one_for_each_device_under_a_plan():
    e = Zone([Device(f"phone-{i}", i) for i in range(5)])
    e.plan(planned(all_take("t")))
    e.announce()
    e.run()
    assert len(e.wishes()) == 5
