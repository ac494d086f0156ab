"""Upload credits at an edge: how fast blocks go, which first, and that none waits for ever."""

from random import Random

import pytest

from device_sim.outbox import BURST_S, STALE, Outbox, Parcel
from schemas.messages import Credits
from streams.processor import Send

SIZE, FAR = 1_000, 10**9
T0 = 50_000


def parcel(name: str = "b", size: int = SIZE, n: int = 1) -> Parcel:
    return Parcel(Send("deltas", bytes(size), name), "t", n)


def credits(rate: int, **shares: int) -> Credits:
    return Credits("s", "z", 0, rate, shares, rate, "")


def limited(rate: int, now: int = T0) -> Outbox:
    box = Outbox("edge")
    box.hear(credits(rate), now, now)
    return box


def take(box: Outbox, now: int, over: tuple[int, ...] = ()) -> list[str | None]:
    return [s.key for s in box.take(now, lambda p: p.round in over)]


def test_without_credits_all_goes_at_once_in_order():
    box = Outbox("edge")
    for i in range(50):
        box.put(parcel(f"{i}"), FAR, T0)
    assert take(box, T0) == [f"{i}" for i in range(50)]
    assert box.waiting == 0


def test_a_burst_goes_at_the_rate_that_was_given():
    box, sent = limited(20 * SIZE), 0
    for i in range(200):
        box.put(parcel(f"{i}"), FAR, T0)
    for now in range(T0, T0 + 5_000, 20):
        if now % 1000 == 0:
            box.hear(credits(20 * SIZE), now, now)
        sent += len(take(box, now))
    assert 98 <= sent <= 101
    assert box.waiting == (200 - sent) * SIZE


def test_a_clock_that_is_set_back_takes_no_credit_away():
    box, back = limited(20 * SIZE), T0 - 30_000
    assert take(box, T0) == []
    for i in range(50):
        box.put(parcel(f"{i}"), FAR, T0)
    box.hear(credits(20 * SIZE), back, back)
    sent = sum(len(take(box, now)) for now in range(back, back + 1_000, 20))
    assert 19 <= sent <= 21


def test_what_was_not_used_is_saved_for_a_quarter_of_a_second_and_no_longer():
    box = limited(20 * SIZE)
    for now in range(T0, T0 + 3_000, 20):
        assert take(box, now) == []
    for i in range(50):
        box.put(parcel(f"{i}"), FAR, now)
    assert len(take(box, now)) == BURST_S * 20


def test_a_block_that_is_larger_than_the_bucket_goes_and_is_paid_for_after():
    box = limited(SIZE)
    for name in "ab":
        box.put(parcel(name, 5 * SIZE), FAR, T0)
    times = [now for now in range(T0, T0 + 12_000, 20) if not box.hear(credits(SIZE), now, now) and take(box, now)]
    assert len(times) == 2
    assert 4_900 <= times[1] - times[0] <= 5_100


def test_an_edge_that_is_named_has_its_share_and_any_other_what_is_for_others():
    box = Outbox("edge")
    box.hear(Credits("s", "z", 0, 100, {"edge": 70}, 10, ""), T0, T0)
    assert box.rate == 70
    box.hear(Credits("s", "z", 0, 100, {"another": 70}, 10, ""), T0, T0)
    assert box.rate == 10


def test_credits_that_nobody_repeats_are_none():
    box = limited(0)
    box.put(parcel(), FAR, T0)
    assert take(box, T0 + STALE) == []
    assert take(box, T0 + STALE + 1) == ["b"]
    box.hear(credits(0), T0 - STALE, T0 + STALE)  # an old record, read late
    box.put(parcel(), FAR, T0 + STALE + 2)
    assert take(box, T0 + STALE + 2) == ["b"]


def test_what_is_due_first_goes_first_and_blocks_of_a_delta_in_order():
    box = limited(100 * SIZE)
    box.put(parcel("late-0"), T0 + 60_000, T0)
    box.put(parcel("late-1"), T0 + 60_000, T0)
    box.put(parcel("soon-0"), T0 + 20_000, T0)
    box.put(parcel("soon-1"), T0 + 20_000, T0)
    assert take(box, T0 + 200) == ["soon-0", "soon-1", "late-0", "late-1"]


@pytest.mark.parametrize("rate", [0, 1, SIZE])
def test_credit_takes_no_more_than_half_of_the_time_that_a_delta_has_left(rate):
    box, dice = limited(rate), Random(rate)
    due = {f"{i}": T0 + dice.randrange(-1_000, 8_000) for i in range(200)}
    for name, at in due.items():
        box.put(parcel(name), at, T0)
    gone: dict[str | None, int] = {}
    for now in range(T0, T0 + 5_000, 20):
        box.hear(credits(rate), now, now)
        gone |= dict.fromkeys(take(box, now), now)
    assert len(gone) == 200
    for name, at in due.items():
        assert gone[name] <= T0 + max(0, at - T0) // 2 + 20
    if not rate:
        assert all(gone[name] >= T0 + (at - T0) // 2 for name, at in due.items())


def test_what_went_without_credit_is_paid_for_by_what_has_time():
    box = limited(10 * SIZE)
    for i in range(30):
        box.put(parcel(f"now-{i}"), T0, T0)
    box.put(parcel("later"), FAR, T0)
    assert len(take(box, T0)) == 30
    times = []
    for now in range(T0, T0 + 5_000, 20):
        box.hear(credits(10 * SIZE), now, now)
        times += [now] * len(take(box, now))
    assert len(times) == 1
    assert 2_900 <= times[0] - T0 <= 3_100


def test_a_block_whose_round_was_over_meanwhile_is_left():
    box = limited(0)
    box.put(parcel("old", n=1), T0 + 200, T0)
    box.put(parcel("new", n=2), T0 + 200, T0)
    assert take(box, T0 + 150, over=(1,)) == ["new"]
    assert (box.left, box.waiting) == (1, 0)
