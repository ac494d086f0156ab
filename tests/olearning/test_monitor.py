"""What the live page says, as functions of a snapshot; and that it says it in words, not in colour alone."""

import re
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from olearning.cli import outcome
from olearning.errors import FAILED, USAGE, Trouble
from olearning.figures import clock
from olearning.happenings import LOSS, ROUND, VOID, Event
from olearning.monitor import charts
from olearning.monitor.facts import STATES, Facts, hands, matching
from olearning.monitor.trend import KEPT_MS, SMOOTH, Trend
from olearning.snapshot import (
    NOBODY,
    OK,
    SILENT,
    Identity,
    LocalView,
    RoundPoint,
    RoundView,
    ShardView,
    Snapshot,
    TaskView,
    TenantView,
    ZoneView,
)
from olearning.words import Say, adds_up, equation, event_say, live
from schemas.messages import DEVICE_STATES

NOW = 1_800_000_000_000
GOOD = Identity(10, 7, 1, 1, 1, 0)
BAD = Identity(11, 7, 1, 1, 1, 0, problem="commits cover 11 offsets; 10 outcomes, 0 held, 0 lost")


def round_(task: str = "digits", waits: str = "waiting for 3 of 20 devices (5 training)", ago: int = 4_000, **more):
    fixed = {
        "epoch": 2,
        "round": 5,
        "state": "open",
        "devices": 17,
        "demand": 20,
        "registered": 20,
        "lapsed": 0,
        "deadline_left": 30_000,
    }
    rest = {
        "rounds_done": 1,
        "rounds_goal": 4,
        "mean_loss": 0.5,
        "segment": GOOD,
        "total": GOOD,
        "unread": 0,
        "blocks": 10,
    }
    return RoundView(task=task, waits=waits, since=NOW - ago if waits else 0, **(fixed | rest | more))


def curve(gap: int = 10_000, losses: tuple[float | None, ...] = (2.0, 1.5, None, 1.0, 0.8)) -> tuple[RoundPoint, ...]:
    return tuple(RoundPoint(n, 1, NOW - 90_000 + gap * n, 6, 100, x) for n, x in enumerate(losses, 1))


def zone(name: str = "east", words: tuple[str, ...] = (OK, OK), rounds=(), **more) -> ZoneView:
    shards = tuple(ShardView(n, "" if w == NOBODY else "agg-0", 3, {"digits": 5}, 2, w) for n, w in enumerate(words))
    fixed = {
        "position": 9,
        "leader": f"zone-{name}",
        "leader_token": 1,
        "devices": {"training": 5, "idle": 10, "asleep": 5},
    }
    rest = {"fleets": (), "aggregators": (), "voids": {}, "blocks": 10, "sent_bytes": 0, "read_bytes": 0, "unread": 0}
    return ZoneView(zone=name, rounds=tuple(rounds), shards=shards, **(fixed | rest | more))


def task(name: str = "digits", **more) -> TaskView:
    fixed = {
        "tenant": "acme",
        "state": "open",
        "epoch": 2,
        "epochs": 8,
        "rounds": {"east": (1, 4)},
        "phase": "execution",
    }
    return TaskView(task=name, **(fixed | {"accuracy": {0: 0.1, 1: 0.8}, "losses": {0: 2.3, 1: 0.7}} | more))


def snapshot(zones=(), tasks=(), **more) -> Snapshot:
    fixed = {
        "at": NOW,
        "namespace": "n",
        "caught_up": True,
        "leader": "global",
        "leader_token": 1,
        "letters": {},
        "voids": {},
    }
    return Snapshot(zones=tuple(zones), tasks=tuple(tasks), **(fixed | more))


def facts(*args, **more) -> Facts:
    return Facts(snapshot(*args, **more))


# ------------------------------------------------------------------ the light and the tiles


def test_the_light_says_what_holds():
    assert facts([zone()]).light == Say("nothing to look at", "good", "✓")
    assert facts([zone()], caught_up=False).light == Say("still reading the past", "warn", "…")
    assert facts([zone(words=(SILENT, OK))]).light == Say("1 to look at", "bad", "▲")
    away = facts([zone()], away=61_000)
    assert (away.light.sign, away.light.tone) == ("✗", "bad")
    assert "no answer from the log for 61 s" in away.light.text
    assert live(away.s) == Say(f"as of {clock(away.s.at)}", "bad", "✗")
    here = facts([zone()]).s
    assert live(here) == Say(f"live {clock(here.at)}", "good", "●")


def test_every_tone_has_its_words_and_its_sign():
    """Colour alone says nothing."""
    bad = facts(
        [zone(words=(NOBODY, SILENT), rounds=[round_(total=BAD)])], [task(), task("x", phase="refused", why="too big")]
    )
    said = [bad.light, *(t.value for t in bad.tiles(1.0, 1.0)), *(bad.task_say(t) for t in bad.s.tasks)]
    said += [bad.zone_light(z) for z in bad.s.zones]
    assert {s.tone for s in said} >= {"bad"}
    for s in said:
        if s.tone in ("good", "warn", "bad"):
            assert s.sign
            assert s.text


def test_the_identity_in_words_and_numbers():
    assert adds_up(GOOD) == Say("adds up", "good", "✓")
    assert equation(GOOD) == "10 offsets = 7 counted + 1 duplicate + 1 late + 1 invalid + 0 incomplete"
    assert adds_up(BAD).tone == "bad"
    assert "11 offsets; 10 outcomes" in adds_up(BAD).text
    assert equation(BAD).startswith("11 offsets ≠ 7 counted")
    assert equation(Identity(2, 1, held=1)).endswith("+ 1 held")
    f = facts([zone("east", rounds=[round_()]), zone("west", rounds=[round_(total=BAD)])])
    assert (f.identity.offsets, f.identity.counted) == (21, 14)
    assert f.identity.problem == f"west: {BAD.problem}"


def test_tiles_hold_the_figures():
    f = facts([zone(words=(OK, OK)), zone("west", words=(SILENT, OK))], [task(), task("old", phase="ended")])
    tiles = {t.label: t for t in f.tiles(12.34, None)}
    assert str(tiles["Tasks"].value) == "1 running"
    assert tiles["Tasks"].note == "1 ended"
    assert str(tiles["Devices"].value) == "10 training"
    assert tiles["Devices"].note == "of 40: 20 idle, 10 asleep"
    assert str(tiles["Delta blocks"].value) == "12.3/s"
    assert str(tiles["Shards"].value) == "? 1 silent"
    assert str(facts().tiles(None, None)[2].value) == "–"


# ------------------------------------------------------------------ waiting: a hang never looks like slow training


def test_a_wait_that_lasts_longer_than_is_usual_says_so():
    usual = curve()
    quick, slow = round_(ago=4_000, curve=usual), round_(ago=40_000, curve=usual)
    assert quick.usual_ms == 10_000
    f = facts([zone(rounds=[quick])])
    assert f.wait_say(f.s.zones[0], quick) == Say("waiting for 3 of 20 devices (5 training), since 4.0\u00a0s", "", "◔")
    said = f.wait_say(f.s.zones[0], slow)
    assert (said.tone, said.sign) == ("warn", "▲")
    assert said.text.endswith("since 40\u00a0s: nothing moved, and a round here usually takes 10\u00a0s")
    unknown = f.wait_say(f.s.zones[0], round_(ago=130_000))
    assert (unknown.tone, unknown.text.endswith("nothing moved")) == ("warn", True)


def test_while_all_sleep_waiting_is_no_warning():
    z = zone(rounds=[round_(ago=10**7)], devices={"asleep": 20})
    assert facts([z]).wait_say(z, z.rounds[0]).tone == ""


def test_rounds_that_keep_failing_are_a_warning_though_each_is_young():
    z = zone(rounds=[round_(ago=1_000, curve=curve(losses=(1.0, None, None, None)))])
    said = facts([z]).wait_say(z, z.rounds[0])
    assert (said.tone, said.text.endswith("; the last 3 rounds failed for want of devices")) == ("warn", True)


def test_who_waits_for_another_zone_is_not_named_before_that_one():
    done = round_(waits="waiting for b to finish its rounds", ago=500_000, state="finalised", rounds_done=4)
    f = facts([zone("a", rounds=[done]), zone("b", rounds=[round_(ago=2_000)])], [task()])
    assert [(w.zone, w.say.tone) for w in f.task_waits("digits")] == [("b", ""), ("a", "")]


def test_a_wait_where_the_zone_needs_a_person_is_bad():
    z = zone(words=(SILENT, OK), rounds=[round_(ago=1_000)])
    assert facts([z]).wait_say(z, z.rounds[0]).tone == "bad"


def test_the_most_urgent_waits_come_first():
    f = facts(
        [zone("a", rounds=[round_(ago=9_000)]), zone("b", words=(NOBODY,), rounds=[round_(ago=1_000)]), zone("c", rounds=[round_(waits="")])],
        [task()],
    )  # fmt: skip
    waits, n = f.waits(1)
    assert ([w.zone for w in waits], n) == (["b"], 2)
    said = f.task_say(f.s.tasks[0])
    assert (said.tone, said.text.startswith("b: waiting for 3 of 20"), said.text.endswith("(+1 more)")) == ("bad", True, True)  # fmt: skip


def test_tasks_that_need_a_person_come_first():
    rounds = [round_("stuck", ago=500_000), round_("fine", ago=1_000)]
    tasks = [task("over", phase="ended"), task("fine"), task("no", phase="refused", why="too big"), task("stuck")]
    f = facts([zone(rounds=rounds)], tasks)
    assert [t.task for t in f.tasks_ranked] == ["stuck", "fine", "no", "over"]
    assert f.task_say(f.s.tasks[2]) == Say("too big", "bad", "✗")


def test_zones_that_need_a_person_come_first():
    f = facts([zone("a"), zone("b", leader_token=0), zone("c", leader_silent=True)])
    assert [z.zone for z in f.zones_ranked] == ["b", "c", "a"]
    assert "olearning run zone --zone b" in f.zone_light(f.s.zones[1]).text
    assert f.zone_light(f.s.zones[0]) == Say("OK", "good", "✓")


# ------------------------------------------------------------------ clocks, events, charts


def test_the_dial_shares_marks_where_zones_stand_close():
    at = {"a": 2.0, "b": 2.5, "c": 14.0, "d": None}
    zones = [zone(n, local=None if h is None else LocalView(h, h < 6, 60_000)) for n, h in at.items()]
    zones[1] = replace(zones[1], leader_token=0)
    assert [(h.label, h.hours, h.tone) for h in hands(facts(zones))] == [("a +1", 2.0, "bad"), ("c", 14.0, "good")]
    assert [LocalView(h, True, 1).clock for h in (0, 2.25, 23.999)] == ["00:00", "02:15", "23:59"]


def test_events_have_signs_and_can_be_found():
    told = [
        Event(1, "east", ROUND, "east: digits round 1 finalised", {"model": True}),
        Event(2, "east", ROUND, "east: digits round 2 failed", {"model": False}),
        Event(3, "east", LOSS, "east: digits stands still", {}),
        Event(4, "east", VOID, "east: claimed is void", {}),
    ]
    assert [event_say(e).tone for e in told] == ["", "warn", "bad", "quiet"]
    assert [e.at for e in matching(told, (), "DIGITS")] == [3, 2, 1]
    assert [e.at for e in matching(told, (LOSS, VOID), "")] == [4, 3]


def test_rates_are_of_the_last_samples():
    trend = Trend()
    assert trend.rate(lambda s: s.blocks) is None
    for n in range(10):
        trend.add(facts([zone(blocks=10 * n)], at=NOW + 1000 * n))
    assert trend.rate(lambda s: s.blocks) == 10.0
    assert len(trend.rates(lambda s: s.blocks)) == 10 - SMOOTH
    trend.add(facts([zone(blocks=10**6)], at=NOW + 10_000, away=6_000))
    trend.add(facts([zone(blocks=10**6)], at=NOW + 10_000, caught_up=False))
    assert trend.rate(lambda s: s.blocks) == 10.0
    trend.add(facts([zone(blocks=0)], at=NOW + 10_000))
    assert trend.rate(lambda s: s.blocks) == 0  # a task was forgotten
    trend.add(facts([zone()], at=NOW + KEPT_MS + 60_000))
    assert len(trend.samples) == 1


def test_charts_hold_the_values_and_say_them():
    options, words = charts.accuracy([task(), task("new", accuracy={})])
    assert [(s["name"], s["data"]) for s in options["series"]] == [("digits", [[0, 0.1], [1, 0.8]])]
    assert words == "Accuracy by epoch: digits 0.800 after epoch 1"
    options, words = charts.losses([(zone("east"), round_(curve=curve()))])
    assert options["series"][0]["data"] == [[1, 2.0], [2, 1.5], [3, None], [4, 1.0], [5, 0.8]]
    assert words == "Loss by round: east 0.800 in round 5"
    options, words = charts.held_out(task())
    assert [s["data"] for s in options["series"]] == [[[0, 0.1], [1, 0.8]], [[0, 2.3], [1, 0.7]]]
    rows = [TenantView("a", 3.0, ("x",), 0, 1, 0, 0, 0, 0.75, 0.25), TenantView("b", 1.0, ("y",), 0, 3, 0, 0, 0, 0.25, 0.75), TenantView("c", 9.0, (), 0, 0, 0, 0, 0)]  # fmt: skip
    options, words = charts.shares(rows)
    assert [s["data"] for s in options["series"]] == [[75.0, 25.0], [25.0, 75.0]]
    assert "a 75 % by weight, 25 % of devices at work" in words


@pytest.mark.parametrize("points", [[], [1.0], [1.0, 1.0], [3.0, 1.0, 2.0]])
def test_a_small_curve(points):
    svg = charts.spark(points)
    assert svg.count("<polyline") == (len(points) > 1)


def test_each_state_of_a_device_has_a_colour_of_its_own():
    style = (Path(charts.__file__).parent / "page.css").read_text()
    assert set(STATES) == set(DEVICE_STATES)
    found = {
        s: set(re.findall(rf"\.part\.{s}\b[^{{]*{{[^}}]*background:[^;}}]*(var\(--\w+\))", style))
        for s in (*DEVICE_STATES, "other")
    }
    assert all(len(colours) == 1 for colours in found.values()), found
    assert len(set.union(*found.values())) == len(found)
    assert all(style.count(f"--{s}: #") == 2 for s in found), "light and dark"


def test_lines_differ_without_colour():
    options, _ = charts.accuracy([task(f"t{n}") for n in range(6)])
    looks = {(s["symbol"], s["lineStyle"]["type"]) for s in options["series"]}
    assert len(looks) == 6


# ------------------------------------------------------------------ the command


def test_without_nicegui_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nicegui", None)
    for name in [n for n in sys.modules if n.startswith("olearning.monitor.")]:
        monkeypatch.delitem(sys.modules, name)
    assert outcome(["monitor", "--bootstrap", "127.0.0.1:1"]) == FAILED
    assert "install olearning[monitor]" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said():
    from olearning.monitor.serve import address, listen

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(Trouble, match="choose another --port") as e:
        listen("127.0.0.1", taken.getsockname()[1])
    assert e.value.code == USAGE
    assert [address(h, 80) for h in ("127.0.0.1", "::", "::1")] == [
        "http://localhost:80",
        "http://localhost:80",
        "http://[::1]:80",
    ]
