"""One device, step by step: what it bids for, what it runs, what it uploads, and what it does when reality differs."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from msgspec.structs import replace

from device_sim.board import Board
from device_sim.device import PATIENCE, STILL_HERE, Device, Habit
from device_sim.job import Act, CheckIn, Give, Job, Train, Wish
from device_sim.pace import Steady
from device_sim.whims import Whims
from learning.rewards import first_quality, quality
from schemas.blocks import Manifest
from schemas.messages import Admission, Announcement, Ref, Refusal
from schemas.task import Training
from schemas.topics import DAY

MINUTE = 60_000
NOWHERE = Manifest(version=0, topic="x", blocks=())


def round_of(task: str, n: int = 1, **more) -> Announcement:
    given = {"reward": 0.5, "lease": 10 * MINUTE, "deadline": 10**9, "open": True} | more
    return Announcement(
        task=task, tenant="acme", round=n, cause=Ref("z", n), model="m", model_args={}, data="d", data_args={},
        training=Training(), sizes=(4,), unit=-24, largest=1.0, base=NOWHERE, **given,
    )  # fmt: skip


@dataclass
class Windows:
    """Free in these windows."""

    spans: list[tuple[int, int]]

    def window(self, now: int):
        return next(((a, b) for a, b in self.spans if a <= now < b), None)

    def next_start(self, now: int) -> int:
        return next((a for a, _ in self.spans if a > now), 10**12)

    def windows(self, start: int, end: int):
        return [(a, b) for a, b in self.spans if a < end and b > start]


@dataclass
class Knows:
    """An outlook that is right."""

    free: Windows
    seen: list[tuple[int, int]] = field(default_factory=list)

    def windows(self, now: int, horizon: int, m: int, *, free: bool | None = None):
        found = [(max(a, now), b) for a, b in self.free.windows(now, now + horizon)]
        return sorted(sorted(found, key=lambda w: w[0] - w[1])[:m])

    def observe(self, start: int, end: int) -> None:
        self.seen.append((start, end))


@dataclass
class Run:
    samples: int = 10
    loss_sum: float = 5.0
    losses: np.ndarray | None = None
    delta: np.ndarray = field(default_factory=lambda: np.zeros(4, np.float32))


class World:
    """A device, its zone's board, and a clock."""

    def __init__(self, spans=((0, 10**9),), ms: int = MINUTE, **more):
        free = Windows([tuple(s) for s in spans])
        self.device = Device("d", 0, free, Steady(ms), outlook=Knows(free), zone="z", habit=Habit(reaction=0), **more)
        self.boards = {"z": Board("z"), "y": Board("y")}
        self.now = 0

    def announce(self, *rounds: Announcement, zone: str = "z") -> None:
        for a in rounds:
            board = self.boards[zone]
            board.rounds[a.task], board.heard[a.task], board.objections[a.task] = a, self.now, ""
            self.device.sizes.setdefault(a.task, (10, 2))
            self.device.hear(a, zone, self.now)

    def wake(self, now: int | None = None) -> list[Act]:
        self.now = self.device.next if now is None else now
        acts = list(self.device.wake(self.now, self.boards))
        assert self.device.next > self.now, "it would be woken for ever"
        return acts

    def wishes(self, now: int | None = None) -> list[str]:
        return [a.job.work.task for a in self.wake(now) if isinstance(a, Wish)]

    def admit(self, task: str, zone: str = "z", n: int = 1) -> None:
        self.device.admitted(zone, Admission("x", task, n, 3, 10**9, Ref("z", 9)), self.now)

    def until(self, kind: type, most: int = 50) -> Act:
        for _ in range(most):
            for act in self.wake():
                if isinstance(act, kind):
                    return act
        raise AssertionError(f"no {kind.__name__}")

    def job(self, task: str, zone: str = "z") -> Job:
        return self.device.jobs[zone, task]

    def trained(self, job: Job, blocks: int = 2, run: Run | None = None) -> None:
        self.device.trained(job, run or Run(), [f"block {i}" for i in range(blocks)], self.now)


def given(acts: Iterator[Act] | list[Act]) -> list[str]:
    return [str(a.block) for a in acts if isinstance(a, Give)]


# ------------------------------------------------------------------ bidding


def test_it_checks_in_when_it_wakes_up_and_not_again():
    w = World([(100, 200), (300, 400)])
    assert w.wake(0) == []
    assert w.device.next == 100
    assert w.wake() == [CheckIn("z")]
    assert w.wake(150) == []
    assert w.wake(200) == []
    assert w.device.state == "asleep"
    assert w.wake(300) == [CheckIn("z")]


def test_who_stays_free_checks_in_now_and_then_lest_it_be_forgotten():
    w = World([(0, 4 * DAY)])
    said = [now for now in range(0, 2 * DAY, 30 * MINUTE) if CheckIn("z") in w.wake(now)]
    assert said == list(range(0, 2 * DAY, STILL_HERE))
    assert w.device.next <= said[-1] + STILL_HERE


def test_where_there_is_time_for_one_it_takes_what_is_worth_more():
    w = World([(0, int(1.5 * MINUTE))])
    w.announce(round_of("less", reward=0.1), round_of("more", reward=0.2))
    assert w.wishes(0) == ["more"]


def test_how_fast_it_reacts_does_not_decide_what_it_takes():
    """Devices that wake up, or hear of several rounds at once, take their time, and then choose among all of them."""
    bids = []
    for k in range(20):
        w = World([(100, 100 + int(1.5 * MINUTE) + 300)])
        w.device.id, w.device.habit = f"d-{k}", Habit(reaction=300)
        w.announce(*(round_of(f"t{i}", reward=0.1 * (i + 1)) for i in range(5)))
        while not (wished := w.wishes()):
            pass
        bids.append((w.now, *wished))
    assert {task for _, task in bids} == {"t4"}
    assert len({now for now, _ in bids}) > 10, "not all at once"
    assert all(100 <= now < 400 for now, _ in bids)


def test_its_own_quality_decides_where_the_zone_says_the_same():
    """Eq. 4: profit is the product of both."""
    w = World([(0, int(1.5 * MINUTE))])
    w.device.quality["known"] = 1.0
    w.announce(round_of("known"), round_of("new"))
    assert first_quality(10, 2) > 1.0
    assert w.wishes(0) == ["new"]
    w = World([(0, int(1.5 * MINUTE))])
    w.device.quality["known"] = 1_000.0
    w.announce(round_of("known"), round_of("new"))
    assert w.wishes(0) == ["known"]


def test_after_a_run_its_quality_is_that_of_the_run_s_losses():
    w = World()
    w.announce(round_of("t"))
    w.wake(0)
    w.admit("t")
    w.until(Train)
    w.trained(w.job("t"), run=Run(losses=np.array([3.0, 4.0], np.float32)))
    assert w.device.quality["t"] == quality(np.array([3.0, 4.0]))
    w = World()
    w.announce(round_of("t"))
    w.wake(0)
    w.admit("t")
    w.until(Train)
    w.trained(w.job("t"), run=Run(loss_sum=7.5))
    assert w.device.quality["t"] == 7.5  # as if each sample had the mean loss


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 1e60])
def test_losses_that_are_none_harm_nobody(bad):
    for run in (Run(losses=np.array([1.0, bad]), loss_sum=5.0), Run(loss_sum=bad)):
        w = World()
        w.announce(round_of("t"))
        w.wake(0)
        w.admit("t")
        w.until(Train)
        w.trained(w.job("t"), run=run)
        assert w.device.quality["t"] == (5.0 if run.losses is not None else 0.0)
        w.until(Give)
        w.announce(round_of("t", 2, reward=10.0**6))
        assert "t" in w.wishes(w.now + 10)


def test_what_takes_longer_than_the_window_is_not_bid_for():
    w = World([(0, MINUTE - 1)])
    w.announce(round_of("t"))
    assert w.wishes(0) == []


def test_a_round_that_ends_before_it_could_deliver_is_left():
    w = World()
    w.announce(round_of("t", deadline=MINUTE - 1), round_of("u", deadline=MINUTE))
    assert w.wishes(0) == ["u"]


def test_what_comes_later_in_its_plan_it_registers_for_only_if_the_lease_holds_so_long():
    w = World()
    w.announce(
        round_of("a", lease=10, deadline=5 * MINUTE), round_of("b", lease=2 * MINUTE), round_of("c", lease=MINUTE)
    )
    assert w.wishes(0) == ["a", "b"], "a is first, whatever its lease; c would begin when its lease is over"
    w.admit("a")
    assert w.until(Train).job is w.job("a")
    w.trained(w.job("a"))
    for act in w.wake():
        assert not isinstance(act, Wish) or act.job.work.task == "c"


def test_a_reward_of_nothing_draws_nobody():
    w = World()
    w.announce(round_of("t", reward=0.0))
    assert w.wishes(0) == []


def test_refused_it_bids_for_another_and_again_when_it_may():
    w = World([(0, int(1.9 * MINUTE))])
    w.announce(round_of("best", reward=0.9), round_of("good", reward=0.5))
    assert w.wishes(0) == ["best"]
    w.now = 10
    w.device.refused("z", Refusal("x", "best", 1, "full", 5_000, Ref("z", 9)), 10)
    assert w.wishes() == ["good"]
    w.device.refused("z", Refusal("x", "good", 1, "full", 10**6, Ref("z", 9)), 20)
    assert w.wishes(20) == []
    assert w.device.next == 5_010
    assert w.wishes() == ["best"]


def test_unanswered_it_asks_again():
    w = World()
    w.announce(round_of("t"))
    assert w.wishes(0) == ["t"]
    assert w.wishes() == ["t"]
    assert w.now == PATIENCE


def test_it_takes_part_once_in_a_round():
    w = World()
    w.announce(round_of("t"))
    w.wake(0)
    w.admit("t")
    w.until(Train)
    w.trained(w.job("t"))
    assert given(w.wake()) == ["block 0", "block 1"]
    assert w.device.jobs == {}
    assert w.wishes(w.now + 1) == []
    w.announce(round_of("t", 2))
    assert w.wishes(w.now + 2) == ["t"]


def test_who_is_busy_for_longer_than_its_window_bids_for_nothing_now():
    """And the next window may begin before it would be done."""
    w = World([(0, 10**9)])
    w.announce(round_of("t"))
    w.wake(0)
    w.admit("t")
    w.wake(1)
    w.device.outlook.windows = lambda now, *a, **k: [(now, now + 10_000), (now + 20_000, now + 10**6)]
    w.announce(round_of("u"))
    assert w.wishes(2) == []
    w.trained(w.until(Train).job)
    w.device.pace = Steady(5_000)
    assert w.until(Wish).job.work.task == "u"


# ------------------------------------------------------------------ running


def test_one_run_at_a_time_the_nearest_deadline_first():
    w = World()
    w.announce(round_of("late", deadline=9 * MINUTE), round_of("soon", deadline=3 * MINUTE))
    assert sorted(w.wishes(0)) == ["late", "soon"]
    w.admit("late")
    w.admit("soon")
    first = w.until(Train)
    assert (first.job.work.task, w.now) == ("soon", MINUTE)
    assert w.job("late").state == "admitted"
    w.trained(first.job)
    assert w.until(Train).job.work.task == "late"
    assert w.now == 2 * MINUTE


def test_dawn_ends_a_run_and_the_outlook_learns_of_it():
    w = World([(0, 50_000), (90_000, 10**9)])
    w.device.outlook.windows = lambda *a, **k: [(0, 10**6)]  # it expected more
    w.announce(round_of("t"))
    w.wake(0)
    w.admit("t")
    w.wake(10)
    assert w.wake(50_000) == []
    assert w.device.jobs == {}
    assert w.device.outlook.seen == [(0, 50_000)]
    assert w.wishes(90_000) == [], "that round it has given up"


def test_an_upload_goes_on_where_it_was_when_the_device_is_free_again():
    w = World([(0, 70_000), (90_000, 10**9)])
    w.device.pace.upload = lambda a, now: 40_000
    w.announce(round_of("t"))
    w.wake(0)
    w.admit("t")
    job = w.until(Train).job
    w.trained(job, blocks=4)
    assert given(w.wake()) == ["block 0"]
    assert given(w.wake()) == []  # asleep
    assert w.device.state == "asleep"
    sent = []
    while job.key in w.device.jobs:
        sent += given(w.wake())
    assert sent == ["block 1", "block 2", "block 3"]
    assert w.now >= 90_000


def test_an_upload_to_a_round_that_closed_meanwhile_is_left():
    w = World([(0, 70_000), (90_000, 10**9)])
    w.device.pace.upload = lambda a, now: 40_000
    w.announce(round_of("t"))
    w.wake(0)
    w.admit("t")
    w.trained(w.until(Train).job, blocks=4)
    w.wake()
    w.wake(70_000)
    w.announce(round_of("t", open=False))
    assert given(w.wake(90_000)) == []
    assert w.device.jobs == {}


@pytest.mark.parametrize(("staleness", "stays"), [(0, False), (1, True)])
def test_a_stale_delta_is_worked_for_only_where_it_may_count(staleness, stays):
    w = World()
    w.announce(round_of("t"))
    w.wake(0)
    w.admit("t")
    w.wake(10)
    w.announce(round_of("t", 2, staleness=staleness))
    assert (("z", "t") in w.device.jobs) == stays


# ------------------------------------------------------------------ mishaps


@pytest.mark.parametrize("admit", [False, True])
def test_nobody_goes_on_with_a_task_that_is_over_though_stale_deltas_count(admit):
    w = World()
    w.announce(round_of("t", 1, staleness=2))
    w.wake()
    if admit:
        w.admit("t")
        w.wake()
    w.device.hear(round_of("t", 1, staleness=2, open=False, over=True), "z", w.now)
    assert w.device.jobs == {}
    assert w.device.running is None


def test_a_device_that_leaves_in_the_middle_trains_nothing():
    w = World(whims=Whims(1, drop=1.0))
    w.announce(round_of("t"))
    w.wake(0)
    w.admit("t")
    w.wake()
    assert w.job("t").until < MINUTE
    w.now = w.device.next
    assert w.wake() == []
    assert w.device.jobs == {}


def test_a_slow_run_takes_longer_and_a_late_one_begins_later():
    for whims, least in ((Whims(1, slow=1.0, slow_times=3), 3 * MINUTE), (Whims(1, late=1.0, latest_ms=1_000), MINUTE)):
        w = World(whims=whims)
        w.announce(round_of("t"))
        w.wake(0)
        w.admit("t")
        w.until(Train)
        assert least <= w.now <= least + 1_000
        assert w.now != MINUTE


def test_a_late_start_is_no_slow_run():
    """What the device learns of its speed is how long it trained."""
    w = World(whims=Whims(1, late=1.0, latest_ms=50_000))
    took = []
    w.device.pace.took = lambda a, samples, ms: took.append(ms)
    w.announce(round_of("t"))
    w.wake(0)
    w.admit("t")
    w.trained(w.until(Train).job)
    assert w.now > MINUTE + 1_000
    assert took == [MINUTE]


def test_an_upload_that_breaks_off_goes_on_after_a_pause():
    w = World(whims=Whims(1, interrupted=1.0, pause_ms=9_000))
    w.announce(round_of("t"))
    w.wake(0)
    w.admit("t")
    job = w.until(Train).job
    w.trained(job, blocks=5)
    times: list[int] = []
    while job.key in w.device.jobs:
        sent = given(w.wake())
        times += [w.now] * len(sent)
    assert len(times) == 5
    assert len(set(times)) == 2
    assert 0 < times[-1] - times[0] <= 9_001


# ------------------------------------------------------------------ moving


class Trip:
    """In zone z, and from `at` on in y."""

    def __init__(self, at: int):
        self.at = at

    def zone(self, now: int) -> str:
        return "y" if now >= self.at else "z"


def test_who_moves_finishes_what_the_old_zone_admitted_and_registers_in_the_new_one():
    w = World(journey=Trip(30_000))
    w.announce(round_of("t"))
    w.announce(round_of("t"), zone="y")
    assert w.wake(0)[0] == CheckIn("z")
    w.admit("t")
    w.wake(1)
    acts = w.wake(30_000)
    assert acts[:2] == [CheckIn("z", gone=True), CheckIn("y")]
    assert [(a.job.zone, a.job.work.task) for a in acts if isinstance(a, Wish)] == [("y", "t")]
    w.admit("t", "y")
    first = w.until(Train)
    assert (first.job.zone, w.now) == ("z", MINUTE + 1)
    w.trained(first.job)
    assert given(w.wake()) == ["block 0", "block 1"]
    second = w.until(Train)
    assert second.job.zone == "y"
    assert ("z", "t") not in w.device.jobs


def test_who_moved_while_it_slept_says_goodbye_when_it_wakes_up():
    w = World([(0, 10), (100, 200)], journey=Trip(50))
    assert w.wake(0) == [CheckIn("z")]
    w.wake(10)
    assert w.wake(100) == [CheckIn("z", gone=True), CheckIn("y")]


def test_an_announcement_of_a_zone_it_is_not_in_draws_no_bid():
    w = World()
    w.wake(0)
    w.announce(round_of("t"), zone="y")
    assert w.wishes(10) == []


def test_it_bids_again_when_its_zone_s_round_is_another():
    w = World()
    w.announce(round_of("t", 3))
    w.wake(0)
    w.announce(replace(round_of("t", 4), cause=Ref("z", 40)))
    assert w.wishes() == ["t"]


# ------------------------------------------------------------------ a slow edge, leases


def test_while_its_run_is_with_the_edge_it_sleeps_on():
    w = World()
    w.announce(round_of("t"))
    w.wake(0)
    w.admit("t")
    w.until(Train)
    assert w.device.next > w.now + 1_000
    assert w.wake(w.now + 20) == []
    w.trained(w.job("t"))
    assert given(w.wake(w.now)) == ["block 0", "block 1"]


def test_what_its_plan_begins_only_after_other_runs_needs_a_lease_that_lasts():
    """However often it plans: a slot that lapses before its run is a place taken from others."""
    w = World()
    w.announce(round_of("a", deadline=5 * MINUTE), round_of("c", lease=MINUTE))
    assert w.wishes(0) == ["a"]
    w.admit("a")
    assert w.wishes(1) == []
    assert w.wishes(2) == []
