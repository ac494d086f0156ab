"""The table of devices seen: exact, bounded, and by bound."""

import numpy as np

from processors.devices import Devices, met_by_none
from schemas.sharing import ABILITIES, meets

PHONE = {"cpu": 6.1, "ram": 6.0, "memory": 1_000.0, "os": 11.0, "bandwidth": 20.0}


def test_it_is_a_dictionary_of_what_was_heard_last():
    """Against one, whatever comes in which order."""
    dice, table, plain = np.random.default_rng(7), Devices(), dict[str, tuple[int, dict[str, float]]]()
    for n in range(3_000):
        device, at = f"d{dice.integers(40)}", n + int(dice.integers(-50, 50))
        if dice.random() < 0.2:
            assert table.drop(device) == (plain.pop(device, None) is not None)
            continue
        abilities = {name: float(dice.integers(1, 9)) for name in ABILITIES if dice.random() < 0.8}
        assert table.hear(device, abilities, at) == (device not in plain)
        if device not in plain or at >= plain[device][0]:
            plain[device] = at, abilities
        if n % 500 == 499:
            table.forget(n - 100)
            plain = {d: x for d, x in plain.items() if x[0] >= n - 100}
        needs = {"ram": 4.0, "os": 3.0}
        assert len(table) == len(plain) == table.table.shape[0]
        assert table.able(needs).sum() == sum(meets(a, needs) for _, a in plain.values())
        assert table.below(needs) == {k: sum(a.get(k, 0) < x for _, a in plain.values()) for k, x in needs.items()}
    assert set(table) == set(plain)


def test_of_too_many_those_heard_of_longest_ago_are_forgotten():
    table = Devices(most=100)
    for n in range(1_000):
        table.hear(f"d{n}", PHONE, n)
    assert 89 <= len(table) <= 100
    assert "d999" in table
    assert "d800" not in table
    assert table.able({"cpu": 6.0}).sum() == len(table)


def test_a_device_that_does_not_say_has_nothing():
    table = Devices()
    table.hear("a", {}, 1)
    assert table.able({}).sum() == 1
    assert table.able({"os": 1.0}).sum() == 0


def zones(*abilities: dict[str, float]) -> dict[str, Devices]:
    out = {"east": Devices(), "west": Devices()}
    for n, a in enumerate(abilities):
        out["east" if n % 2 else "west"].hear(f"d{n}", a, n)
    return out


def test_why_nobody_can_do_a_task_names_the_bounds_that_nobody_meets():
    seen = zones(*[PHONE] * 812)
    said = met_by_none(seen, {"ram": 16.0, "os": 10.0})
    assert said == "none of the 812 devices seen within a day in east, west has ram 16 or more"
    assert met_by_none(seen, {"ram": 16.0, "cpu": 9.0}).endswith("has ram 16 or more and cpu 9 or more")
    assert met_by_none(seen, {"ram": 6.0}) == ""


def test_bounds_that_are_met_but_never_together():
    seen = zones({"ram": 16.0}, {"cpu": 9.0})
    assert met_by_none(seen, {"ram": 16.0, "cpu": 9.0}).endswith("has ram 16 or more and cpu 9 or more at once")


def test_where_no_device_was_seen_yet_nothing_is_said():
    assert met_by_none(zones(), {"ram": 16.0}) == ""
    assert met_by_none(zones(PHONE), {"ram": 16.0}) != "", "one zone is empty, the other is not"
