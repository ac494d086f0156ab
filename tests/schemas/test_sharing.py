"""Needs, tenants and plans as they travel."""

import pytest

from schemas.sharing import Rule, SharingPlan, Turn, allowed, meets
from schemas.task import BadTask, parse

SMALL = {"task": "wine", "model": "mlp", "data": "digits"}
STRONG, BIG = {"cpu": 7.0, "ram": 6.0}, {"ram": 4.0}


def rule(*tasks: str, **bounds) -> Rule:
    return Rule(turns=(Turn(share=1.0, tasks=tasks),), **bounds)


def test_a_device_meets_bounds_if_it_has_at_least_so_much_of_each():
    assert meets({"cpu": 7.0, "ram": 6.0, "os": 9.0}, STRONG)
    assert not meets({"cpu": 6.9, "ram": 6.0}, STRONG)
    assert meets({}, {})
    assert not meets({}, BIG), "what is not reported is 0"


def test_the_first_rule_that_fits_holds():
    plan = SharingPlan(zone="asia", at=1, policy="irs", rules=(rule("a", meets=(STRONG,)), rule("b", meets=(BIG,))))
    strong, big = {"cpu": 9.0, "ram": 8.0}, {"cpu": 1.0, "ram": 4.0}
    assert [allowed(plan, strong, t) for t in "ab"] == [True, False]
    assert [allowed(plan, big, t) for t in "ab"] == [False, True]
    assert not allowed(plan, {"ram": 3.0}, "b"), "no rule fits"


def test_a_rule_may_leave_devices_out():
    scarce = rule("a", meets=(BIG,), lacks=(STRONG,))
    assert scarce.fits({"ram": 5.0})
    assert not scarce.fits({"ram": 8.0, "cpu": 8.0})


def test_where_devices_choose_every_task_is_allowed():
    assert allowed(SharingPlan(zone="asia", at=1, policy="reward", chosen=True), {}, "a")


def test_a_need_that_no_device_reports_is_refused_in_words():
    with pytest.raises(BadTask, match=r"needs\.public\.gpu is nothing devices report; they do: cpu, ram, memory"):
        parse(SMALL | {"needs": {"public": {"gpu": 1.0}}})
    with pytest.raises(BadTask, match="needs"):
        parse(SMALL | {"needs": {"publik": {}}})
