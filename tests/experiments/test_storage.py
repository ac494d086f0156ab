"""The day's uploads are as they say, the real aggregators on it take the time they should, the queues agree, and a wrong sum is seen."""

import json
from collections import defaultdict
from itertools import pairwise

import pytest

from device_sim.availability import Availability
from experiments.asked import Asked
from experiments.pools import Pools, Wrong
from experiments.queues import latencies, needed
from experiments.record import Runs
from experiments.storage import run
from experiments.storage_figures import OWN, POOLED, SLOW, _gains
from experiments.uploads import HOUR, MINUTE, ZONES, Round, day
from experiments.worked import DELTA, SUM, Way

READ, WRITE = 168, 408
READ_ALONE = 85


def cohort(task: str, number: int, opens: int, arrivals: list[int], demand: int = 0) -> Round:
    """A round whose deltas arrive then; it closes with the last."""
    devices = tuple(f"device-{task}-{i}" for i in range(len(arrivals)))
    uploads = tuple(sorted(zip(arrivals, range(len(arrivals)), strict=True)))
    return Round(task, number, demand or len(arrivals), opens, uploads[-1][0], devices, uploads)


# ------------------------------------------------------------------ the day


def test_devices_take_part_at_night_for_one_task_at_a_time():
    rounds = day(3, tasks=3, demand=8, devices=120, hours=8)
    assert rounds == day(3, tasks=3, demand=8, devices=120, hours=8) != day(4, tasks=3, demand=8, devices=120, hours=8)
    busy = defaultdict(list)
    for r in rounds:
        assert len(r.uploads) <= r.demand == 8
        assert r.closes == (r.uploads[-1][0] if len(r.uploads) == 8 else r.opens + HOUR)
        for at, slot in r.uploads:
            device = r.devices[slot]
            nights = [Availability(device, offset, 24 * HOUR, 3) for offset in ZONES]
            assert any(w and w[0] <= r.opens and at <= w[1] for w in (n.window(r.opens) for n in nights))
            busy[device].append((r.opens, at))
    assert any(len(x) > 1 for x in busy.values())
    for spans in busy.values():
        spans.sort()
        assert all(a[1] + HOUR // 2 <= b[0] for a, b in pairwise(spans))


def test_where_it_is_day_rounds_are_starved():
    by_hour = defaultdict(int)
    for r in day(1, tasks=2, demand=60, devices=300, hours=24):
        for at, _ in r.uploads:
            by_hour[at // HOUR] += 1
    assert max(by_hour.values()) > 3 * min(by_hour[h] for h in range(1, 24))


# ------------------------------------------------------------------ real aggregators


def test_on_arrival_only_the_last_delta_and_its_sum_are_waited_for():
    r = cohort("a", 1, MINUTE, [MINUTE + 500 * k for k in range(1, 11)])
    way = Way("one", 1)
    pools = Pools([r], way, 1)
    held = pools.run(1)
    assert latencies([r], way) == [READ + WRITE]
    assert pools.latencies[0] == pytest.approx(READ + WRITE, abs=10)
    assert pools.memory.busy_ms == 10 * READ + pools.memory.sums * WRITE
    assert held[-1].service == held[-1].kept == 0


def test_task_oriented_all_are_cached_and_then_added():
    arrivals = [MINUTE + 1000 * k for k in range(1, 101)]
    r = cohort("a", 1, MINUTE, arrivals)
    way = Way("task", 1, complete=True)
    pools = Pools([r], way, 1)
    held = pools.run(1)
    assert latencies([r], way) == [100 * READ_ALONE + WRITE]
    assert pools.latencies[0] == pytest.approx(100 * READ_ALONE + WRITE, abs=120)
    assert held[1].unread == held[1].uncommitted == DELTA * sum(at <= 2 * MINUTE for at in arrivals)
    assert pools.memory.sums == 1


def test_between_commits_a_sum_is_held_and_then_it_lies_in_the_partials():
    r = cohort("a", 1, MINUTE, [2 * MINUTE - 1000, 10 * MINUTE])
    slow, fast = (Pools([r], Way("one", 1, interval=i), 1).run(1) for i in (5 * MINUTE, 10_000))
    at = next(i for i, h in enumerate(slow) if h.at == 2 * MINUTE)
    assert (slow[at].sums, slow[at].uncommitted, slow[at].unread, slow[at].partials) == (SUM, DELTA, 0, 0)
    assert (fast[at + 1].sums, fast[at + 1].uncommitted, fast[at + 1].partials) == (0, 0, SUM)


def test_a_crash_loses_nothing_and_what_was_not_committed_is_read_again():
    r = cohort("a", 1, MINUTE, [10 * MINUTE + 7_000 * k for k in range(340)])
    quiet, shaken = (Pools([r], Way("one", 2, interval=5 * MINUTE, crashes=n), 1) for n in (0, 2))
    quiet.run(1)
    shaken.run(1)  # every sum is compared
    assert (quiet.memory.again, quiet.lost) == (0, [])
    assert 0 < shaken.memory.again * DELTA < sum(shaken.lost)
    assert shaken.lost[1] % DELTA == 0


def test_a_wrong_sum_is_seen():
    pools = Pools([cohort("a", 1, MINUTE, [2 * MINUTE, 3 * MINUTE])], Way("one", 1), 1)
    upload = pools._upload

    def more(r: Round, slot: int) -> None:
        upload(r, slot)
        pools.due[r.task, r.number][2] += 1

    pools._upload = more
    with pytest.raises(Wrong, match="adds up to"):
        pools.run(1)


# ------------------------------------------------------------------ queues


def test_in_one_pool_rounds_that_are_complete_together_wait_for_each_other():
    rounds = [cohort(task, 1, MINUTE, [2 * MINUTE] * 10) for task in "ab"]
    one = 10 * READ_ALONE + WRITE
    assert latencies(rounds, Way("one", 1, complete=True)) == [one, 2 * one]
    assert latencies(rounds, Way("task", 1, complete=True)) == [one, one]


def test_the_least_number_of_workers():
    rounds = [cohort("a", 1, MINUTE, [2 * MINUTE] * 100)]
    waits = {n: latencies(rounds, Way("one", n, complete=True))[0] for n in (1, 2, 3, 4)}
    for n in (2, 3, 4):
        assert needed(rounds, lambda n: Way("one", n, complete=True), waits[n]) <= n
        assert needed(rounds, lambda n: Way("one", n, complete=True), waits[n] - 1) > n - 1
    assert needed(rounds, lambda n: Way("one", n, complete=True), WRITE - 1, most=8) == 0


@pytest.mark.parametrize("way", [Way("one", 1), Way("one", 2), Way("one", 1, interval=10 * MINUTE)])
def test_the_queues_say_about_what_the_real_ones_do(way):
    rounds = day(2, tasks=2, demand=20, devices=150, hours=2)
    pools = Pools(rounds, way, 1)
    pools.run(2)
    assert max(pools.latencies) == pytest.approx(max(latencies(rounds, way)), abs=WRITE + READ)


# ------------------------------------------------------------------ all of it


@pytest.mark.program
def test_the_experiment_writes_what_it_should(tmp_path):
    said = []
    run(Asked("storage", tmp_path, Runs(tmp_path, "abc"), None, said.append, seeds=1, quick=True))
    rows = [json.loads(line) for line in (tmp_path / "raw.jsonl").read_text().splitlines()]
    days = [r["result"] for r in rows if r["settings"]["what"] == "day"]
    assert len({d["deltas"] for d in days}) == 1  # the same day for all
    assert (tmp_path / "table.md").read_text() == said[-1]
    assert (tmp_path / "storage.png").exists()
    assert (tmp_path / "storage.svg").exists()


def test_a_gain_is_what_is_saved_of_the_other_ways_cost():
    def came(workers: int, busy: float, service: float, kept: float) -> dict:
        return {
            "workers": workers,
            "busy_s": busy,
            "sums": 0,
            "held": {"service": {"mean": service}, "kept": {"mean": kept}},
        }

    day = {
        "shared": came(1, 30, 5, 150),
        SLOW: came(1, 15, 5, 50),
        OWN: came(4, 10, 50, 100),
        POOLED: came(1, 10, 50, 100),
    }
    rows = [[cell.strip() for cell in line.split("|")[2:-1]] for line in _gains([day]).splitlines()[2:]]
    busy = "-200 (1) %"
    assert rows[0] == ["over 40 to 50 %", "75 (1) %", busy, busy, "90 (1) %", "-50 (1) %"]
    assert rows[3] == ["–", "0 (1) %", "-50 (1) %", "-50 (1) %", "90 (1) %", "50 (1) %"]
