"""The rate at which a zone's edges may send, and each one's share."""

import pytest
from msgspec.structs import replace

from processors.credits import AIM_S, Edges, rate
from processors.loads import SILENT
from schemas.messages import FleetReport


def report(name: str, waiting: int = 0, at: int = 1) -> FleetReport:
    return FleetReport(name, "z", at, {}, 0, 0, waiting=waiting)


def test_twice_what_is_managed_at_rest_as_much_at_the_aim_and_never_nothing():
    assert rate(1e6, 0) == 2e6
    assert rate(1e6, int(AIM_S * 1e6)) == 1e6
    assert rate(1e6, 10**12) == 250_000


def test_under_a_lasting_flood_the_backlog_settles_at_the_aim():
    backlog = 0.0
    for _ in range(200):  # a tenth of a second each
        backlog = max(0.0, backlog + (rate(1e6, int(backlog)) - 1e6) / 10)
    assert backlog == pytest.approx(AIM_S * 1e6, rel=0.02)


def test_shares_are_by_what_waits_and_idle_edges_may_begin():
    edges = Edges("z")
    for name, waiting in (("a", 3_000), ("b", 1_000), ("idle", 0)):
        edges.hear(report(name, waiting), 5)
    c = edges.credits("s", 1e6, 0, 9)
    assert (c.rate, c.shares, c.other) == (2_000_000, {"a": 1_500_000, "b": 500_000}, 500_000)
    assert (c.source, c.zone, c.at) == ("s", "z", 9)
    assert c.why == "0 B to aggregate and 4.0 kB at edges; aggregators do 1.0 MB/s"


def test_an_edge_of_another_zone_has_its_share_while_its_visitors_deltas_wait():
    edges = Edges("z")
    edges.hear(report("a", 3_000), 5)
    visitors = FleetReport("b", "y", 1, {}, 0, 0, waiting=77_000, elsewhere={"z": 1_000, "x": 5})
    edges.hear(visitors, 5)
    assert edges.credits("s", 1e6, 0, 9).shares == {"a": 1_500_000, "b": 500_000}, "together no more than the rate"
    edges.hear(replace(visitors, at=2, elsewhere={"x": 5}), 6)
    c = edges.credits("s", 1e6, 0, 9)
    assert (c.shares, c.other) == ({"a": 2_000_000}, 1_000_000), "it is none of the zone's edges any more"


def test_copies_and_late_reports_change_nothing_and_the_silent_are_forgotten():
    edges = Edges("z")
    edges.hear(report("a", 5, at=10), 0)
    edges.hear(report("a", 9, at=9), 1)
    edges.hear(report("a", 9, at=10), 1)
    assert edges.credits("s", 1.0, 0, 0).shares == {"a": 2}
    edges.forget(SILENT)
    assert edges.names == {}


@pytest.mark.parametrize("off", [1, 16, 300])
def test_a_capacity_that_was_measured_too_low_does_not_hold_for_ever(off):
    """Aggregators do a megabyte a second, and were seen to do a part of it; edges have more than they can ever send."""
    edges, backlog, rates, most = Edges("z"), 0.0, [], 0.0
    for second in range(120):
        edges.hear(report("a", 10**12, at=second + 1), second)
        rates.append(edges.credits("s", 1e6 / off, int(backlog), second).rate)
        backlog = max(0.0, backlog + rates[-1] - 1e6)
        most = max(most, backlog)
    assert sum(min(r, 1e6) for r in rates[60:]) > 0.8 * 60 * 1e6
    assert most < 2 * AIM_S * 1e6


def test_edges_that_have_nothing_to_send_say_nothing_of_the_capacity():
    edges = Edges("z")
    for second in range(50):
        edges.hear(report("a", 0, at=second + 1), second)
        assert edges.credits("s", 1e6, 0, second).rate == 2e6
