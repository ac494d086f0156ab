"""What people see of an audit, of a round's contributors and of a loss: `verify`, `explain`, `abandon`, and the status screen."""

import io
import json
import re
from typing import Any

import pytest
from rich.console import Console

from olearning import abandon, explain, verify
from olearning.errors import FAILED, OK
from olearning.figures import runs
from olearning.options import show
from olearning.status import status_screen
from olearning.view import View
from olearning.words import problems
from schemas.blocks import SumBlock
from schemas.facts import Committed
from schemas.wire import decode
from streams.processor import Send
from tests.plane import NS, Plane
from tests.processors.rig import DEVICES, Rig, Z, blocks, changed
from tests.processors.test_auditor import audit, bad, commits, flipped, place_of, put, run


@pytest.fixture
def plane() -> Plane:
    return run()


def test_a_good_round_is_said_to_be_good(plane: Plane, command: Any) -> None:
    code, out, errors = command(plane.memory, "verify", "toy", "2", "--zone", "east")
    assert (code, errors) == (OK, "")
    assert out.startswith("round 2 of toy in zone east: OK\n")
    assert re.search(r"\n  \d+ offsets = 12 counted \+ \d+ duplicate \+ 0 late \+ 0 invalid \+ 0 incomplete\n", out)
    assert "model version 2: 12 values in 2 blocks, recomputed from its base: every bit the same" in out
    code, out, _ = command(plane.memory, "verify", "toy", "2", "--zone", "east", "--json")
    told = json.loads(out)
    assert (code, told["verdict"], told["counts"]["counted"], told["devices"]) == (OK, "ok", 12, 6)
    assert told["model"] == {"version": 2, "recomputed": True}


def test_a_bad_round_is_said_to_be_bad_with_what_differs_first(plane: Plane, command: Any) -> None:
    offset, fact = commits(plane)[0]
    place = next(x for x in fact.sums if x)
    name = f"{NS}.east.partials"
    p, o, value = place_of(plane, name, place.key)
    put(plane, name, p, o, flipped(decode(value, (SumBlock,)), 0))
    code, out, _ = command(plane.memory, "verify", "toy", "2", "--zone", "east")
    assert code == FAILED
    assert "round 2 of toy in zone east: DIFFERS\n  first: the commit at " in out
    assert f"@{offset} (agg-east-" in out
    assert "value 0: expected " in out
    code, out, _ = command(plane.memory, "verify", "toy", "2", "--zone", "east", "--json")
    assert (code, json.loads(out)["verdict"]) == (FAILED, "differs")


def test_what_cannot_be_checked_is_said(plane: Plane, command: Any) -> None:
    del plane.memory.topics[f"{NS}.east.deltas.toy"]
    code, out, _ = command(plane.memory, "verify", "toy", "2", "--zone", "east")
    assert code == FAILED
    assert "NOT WHOLLY VERIFIED\n  cannot be checked: the deltas are gone: " in out
    assert "model version 2" in out
    code, _, errors = command(plane.memory, "verify", "toy", "9", "--zone", "east")
    assert (code, errors) == (FAILED, "olearning: round 9 of toy is not in the ledger: the last one is 6\n")


def test_many_differences_are_cut_short(plane: Plane) -> None:
    a = bad_one(plane)
    a.differs += [f"more {i}" for i in range(20)]
    a.more = 5
    assert sum("then: " in x for x in verify.lines(a)) == verify.MOST - 1
    assert any(re.fullmatch(r"  … and \d+ more", x) for x in verify.lines(a))


def bad_one(plane: Plane) -> Any:
    offset, _ = commits(plane)[0]
    put(plane, f"{NS}.east.ledger", 0, offset, b"")
    return bad(plane)


def test_who_contributed_what(plane: Plane, command: Any) -> None:
    code, out, _ = command(plane.memory, "explain", "toy", "1", "--zone", "east")
    assert code == OK
    for words in ("toy round 1 opened", "the demand is met", "toy round 1 closed", "finalised: 6 devices", "OK"):
        assert words in out
    code, out, _ = command(plane.memory, "explain", "toy", "1", "--zone", "east", "--json")
    told = json.loads(out)
    assert code == OK
    assert [x["slot"] for x in told["slots"]] == list(range(6))
    assert all(x["whole"] and x["samples"] == x["weight"] > 0 for x in told["slots"])
    counted = sum(b - a for x in told["slots"] for a, b in x["blocks"]["counted"])
    assert counted == sum(c["counts"]["counted"] for c in told["commits"]) == 12
    by = {c["offset"]: c for c in told["commits"]}
    for x in told["slots"]:
        for c in x["commits"]:
            start, end = by[c]["stretches"][str(x["shard"])]
            assert any(start <= a and b <= end for a, b in x["blocks"]["counted"])
    assert told["opened"]["at"] <= told["met"] <= told["closed"]["at"] <= told["finalised"]["at"]
    assert told["closed"]["why"] == "demand"


def test_what_was_refused_is_explained_with_the_reason() -> None:
    rig = Rig(2, deadline_s=3.0, atomic=True)
    rig.admit(1, DEVICES[:3])
    half, whole = (blocks(d, rig.slot(1, d)) for d in DEVICES[:2])
    rig.send(half[0], *whole, whole[0], changed(half[1], weight=10**7), changed(half[1], round=1, slot=77))
    rig.memory.append(Send(rig.deltas.name, b"\xff\x1b", "x\x1b[31m", 1))
    rig.finalised(1)
    a, _ = audit(rig.memory, Z, "t", 1)
    told = explain.as_json(a)
    slots = {x["device"]: x for x in told["slots"]}
    assert {k: len(v) for k, v in slots[DEVICES[0]]["blocks"].items()} == {"incomplete": 1, "invalid": 1}
    assert slots[DEVICES[0]]["reasons"][0].startswith("weight 10000000 or samples ")
    assert slots[DEVICES[1]]["whole"]
    assert slots[DEVICES[2]]["blocks"] == {}
    assert [x["reason"] for x in told["others"] if x["device"] == DEVICES[0]] == ["round 1 has no slot 77"]
    assert len(told["others"]) == 2
    out = io.StringIO()
    Console(file=out, width=140).print(explain.screen(a))
    assert "nothing came" in out.getvalue()
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("columns", ["20", "60", "80"])
def test_ids_are_whole_however_narrow_it_is(
    plane: Plane, capsys: pytest.CaptureFixture[str], columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    a, _ = audit(plane.memory, "east", "toy", 2)
    told = explain.as_json(a)
    show(explain.screen(a))
    lines = capsys.readouterr().out.splitlines()
    rows = [(x["device"], f" {x['weight']} ") for x in told["slots"]] + [(x["holder"],) for x in told["commits"]]
    for row in rows:
        assert any(all(x in line for x in row) for line in lines), (row, lines)


def test_without_the_log_it_still_tells_who_was_counted(plane: Plane, command: Any) -> None:
    del plane.memory.topics[f"{NS}.east.deltas.toy"]
    code, out, _ = command(plane.memory, "explain", "toy", "1", "--zone", "east", "--json")
    told = json.loads(out)
    assert code == OK
    assert told["verdict"] == "incomplete"
    assert all(x["whole"] and not x["blocks"] for x in told["slots"])


def test_runs_of_offsets() -> None:
    assert runs([5, 1, 2, 3, 9]) == [[1, 4], [5, 6], [9, 10]]
    assert runs([]) == []


# ------------------------------------------------------------------ losses


def lose(rig: Rig) -> None:
    rig.admit(1, DEVICES[:3])
    sent = {d: blocks(d, rig.slot(1, d)) for d in DEVICES[:3]}
    rig.send(*sent[DEVICES[0]])
    rig.until(lambda: bool(rig.facts(Committed)))
    for host in rig.aggregators:
        host.crash()
    for p, o in rig.send(*sent[DEVICES[1]]):
        rig.memory.cut(rig.deltas.name, p, o + 1)
    for host in rig.aggregators:
        host.restart()
    rig.until(lambda: rig.zone.tasks["t"].loss is not None)


def test_a_loss_is_shown_asked_about_and_given_up(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(deadline_s=20.0)
    words = ("abandon", "t", "--zone", Z, "--reason", "the disk is gone", "--by", "ann")
    rig.until(lambda: rig.at(1, "open"))
    code, _, errors = command(rig.memory, *words)
    assert (code, errors) == (FAILED, f"olearning: t has lost nothing in zone {Z}: there is nothing to give up\n")
    lose(rig)

    asked: list[str] = []
    monkeypatch.setattr("typer.confirm", lambda text: bool(asked.append(text)))
    code, out, errors = command(rig.memory, *words)
    assert (code, errors, asked) == (FAILED, "olearning: nothing was given up\n", ["Give it up?"])
    assert "t stands still since offset " in out
    assert re.search(r"shard \d: offsets 0 to 1 \(2 blocks\); it goes on at 2", out)
    assert rig.zone.tasks["t"].loss

    code, out, errors = command(rig.memory, *words, "--yes")
    assert (code, errors, len(asked)) == (OK, "", 1)
    assert out.endswith("t goes on without it\n")
    rig.until(lambda: rig.zone.tasks["t"].loss is None)


def test_sums_that_are_lost_are_named() -> None:
    rig = Rig(deadline_s=20.0)
    lose(rig)
    t = rig.zone.tasks["t"]
    assert t.loss
    (commit,) = (c for c in t.rounds[1].commits)
    loss = type(t.loss)(t.loss.at, "sums are gone", {1: (9, 7)}, (commit.offset,))
    text = "\n".join(abandon.lines("t", t, loss))
    assert f"round 1: the commit at {commit.offset}, 2 blocks, 1 whole deltas" in text
    assert "shard 1: the log ends at 7, and commits cover it to 9; it goes on at 7" in text


def test_the_screen_shows_a_task_that_stands_still_and_what_to_do() -> None:
    rig = Rig(deadline_s=20.0)
    lose(rig)
    view = View(NS)
    rig.memory.host(lambda life: view)
    rig.until(lambda: view.caught_up)
    s = view.snapshot(rig.memory.now)
    (said,) = (x for x in problems(s) if "stands still" in x)
    assert said.startswith(f"{Z}: t stands still: ")
    assert "retention was too short" in said
    assert said.endswith(f"olearning abandon t --zone {Z} --reason WORDS")
    out = io.StringIO()
    Console(file=out, width=200).print(status_screen(view, rig.memory.now))
    assert f"olearning abandon t --zone {Z}" in " ".join(out.getvalue().split())
    assert any(e.kind == "loss" and "t stands still: " in e.text for e in view.drain())


def test_of_a_slot_that_owes_a_part_its_blocks_and_their_weights_are_told() -> None:
    rig = Rig(partial=True)
    rig.admit(1, DEVICES[:3], {DEVICES[0]: (0,), DEVICES[1]: (0, 1)})
    sent = {d: blocks(d, rig.slot(1, d)) for d in DEVICES[:3]}
    two = changed(sent[DEVICES[1]][1], weight=900)
    rig.send(*sent[DEVICES[0]], sent[DEVICES[1]][0], two, *sent[DEVICES[2]])
    rig.finalised(1)
    a, _ = audit(rig.memory, Z, "t", 1)
    assert verify.verdict(a) == "ok"
    one, other, whole = sorted(explain.as_json(a)["slots"], key=lambda x: DEVICES.index(x["device"]))
    assert (one["owes"], other["owes"], whole["owes"]) == ([0], [0, 1], None)
    assert one["whole"]
    assert one["reasons"] == [f"slot {one['slot']} of round 1 owes no block 1"]
    assert one["weights"] == {"0": one["weight"]}
    assert one["weight"] > 0
    assert (other["weight"], other["weights"]) == (None, {"0": other["samples"], "1": 900})
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(explain.screen(a))
    told = console.export_text()
    assert "(owes 1 of the model: 0)" in told
    assert "(owes 2 of the model: 0–1)" in told
    assert f"{other['samples']}–900" in told
