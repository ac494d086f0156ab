"""A flood of refused devices is sent away for longer, until it is no more than a zone deals with; another tenant's few are not."""

from collections import defaultdict

import pytest

from processors import pacing
from processors.pacing import LONGEST, MOST, Pacing
from schemas.messages import Refusal, Registration
from schemas.topics import topic
from tests.processors.rig import NS, Z
from tests.processors.test_sharing import shared

LEAST = 1_000


def flood(pace: Pacing, many: int, few: int, capacity: int, seconds: int) -> list[int]:
    """How many try again in each second: of a tenant with `many` devices and one with `few`, at a full round for so long."""
    due = defaultdict(list, {0: [("noisy", f"n{i}") for i in range(many)] + [("quiet", f"q{i}") for i in range(few)]})
    came, waits = [], list[tuple[str, str]]()
    for step in range(10 * seconds):
        came.append(len(due[step]))
        waits += due.pop(step)
        served, waits = waits[: capacity // 10], waits[capacity // 10 :]
        for tenant, device in served:
            due[step + 1 + pace.retry(tenant, device, 100 * step) // 100].append((tenant, device))
    return [sum(came[10 * s : 10 * s + 10]) for s in range(seconds)]


def test_a_flood_settles_at_what_is_dealt_with_easily():
    pace = Pacing(LEAST)
    came = flood(pace, 60_000, 20, 15_000, 60)
    assert sum(came[40:]) / 20 < 1.3 * MOST / 2, "its part, where there are two"
    assert pace.windows.keys() == {"noisy"}
    assert LEAST < pace.windows["noisy"] <= LONGEST
    assert pace.retry("quiet", "q1", 59_999) == LEAST


def test_few_devices_come_again_as_soon_as_ever():
    pace = Pacing(LEAST)
    flood(pace, 1_500, 1_500, 15_000, 10)
    assert pace.windows == {}


def test_when_the_flood_is_over_the_window_is_the_least_again():
    pace = Pacing(LEAST)
    flood(pace, 60_000, 0, 15_000, 20)
    assert pace.windows
    assert pace.retry("quiet", "q", 40_000) == LEAST
    assert pace.retry("noisy", "n1", 41_000) == LEAST


def test_the_selector_sends_a_flood_away_for_longer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pacing, "MOST", 10)
    r = shared(deadline_s=600.0)
    r.task("u", "acme", demand=1, minimum=1, over_commit=1.0, deadline_s=600.0)
    full = r.ask("first", "u")
    assert not isinstance(full, Refusal)
    for _ in range(3):
        for i in range(40):
            r.put(topic(NS, Z, "registrations"), Registration(f"p-{i}", "u", 1), f"p-{i}")
        r.memory.run(limit=1_100)
    late = r.ask("late", "u")
    assert isinstance(late, Refusal)
    assert late.reason == "the round is full"
    assert late.retry_ms > LEAST
