"""The screen holds what a person needs at 80 columns and at 140, and JSON holds the same."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from olearning.figures import listed, span
from olearning.panels import shards_panel, zones_panel
from olearning.screen import shards_table
from olearning.status import status_screen, tasks_table, to_json
from streams.memory import Memory
from streams.processor import Send
from tests.olearning.watched import finished, watch
from tests.plane import NS, Plane, spec


def shown(what, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(what)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def troubled():
    """A plane without its aggregators, and with a dead letter to come."""
    plane = Plane(Memory(seed=2))
    view = watch(plane)
    plane.submit(spec())
    plane.memory.run(limit=300)
    for n in range(2):
        plane.hosts[f"agg-east-{n}"].crash()
    plane.memory.append(Send(f"{NS}.east.registrations", b"\xff\x00", "x"))
    plane.memory.run(limit=8_000)
    return view


@pytest.mark.parametrize("width", [80, 140])
def test_a_finished_run(width):
    _, view = finished()
    text = shown(status_screen(view, view.now), width)
    assert max(map(len, text.splitlines())) <= width
    for word in (
        "toy",
        "✓ ended",
        "2/2",
        "east",
        "west",
        "0.900",
        "agg-east-0",
        "✓ OK",
        "✓ yes",
        "idle",
        "nothing to look at",
    ):
        assert word in text, word
    assert "Dead letters" not in text


@pytest.mark.parametrize("width", [80, 140])
def test_a_run_in_trouble(troubled, width):
    text = shown(status_screen(troubled, troubled.now), width)
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for word in ("? silent", "to look at", "Dead letters: 1", "since", "unread", "holds it and"):
        assert word in flat, word


@pytest.mark.parametrize("width", [80, 140])
def test_what_comes_first_and_how_many_aggregators_it_takes(width):
    plane = Plane(Memory(seed=2), scheduler=True)
    view = watch(plane)
    plane.submit(spec(epochs=50))
    assert plane.memory.run(lambda: len(view.orders) == 2, 30_000)
    text = shown(status_screen(view, view.now), width)
    assert max(map(len, text.splitlines())) <= width
    assert "the only one" in text
    assert "Aggregators" in text
    assert "silent" not in text
    plane.hosts["scheduler"].crash()
    plane.memory.run(limit=6_000)
    assert "is silent: nobody goes by this" in " ".join(shown(status_screen(view, view.now), width).split())
    out = json.loads(json.dumps(to_json(view, view.now)))
    assert out["zones"][0]["schedule"]["order"] == ["toy"]


def test_a_name_that_looks_like_markup_is_a_name(troubled):
    s = troubled.snapshot(troubled.now)
    east = s.zones[0]
    odd = replace(east, leader="l[/b]", shards=tuple(replace(x, holder="h[/b]") for x in east.shards))
    s = replace(s, zones=(odd,))
    assert "h[/b]" in shown(shards_table(s), 140)
    assert "h[/b]" in shown(shards_panel(s), 140)
    assert "l[/b]" in shown(zones_panel(s), 140)


def test_before_anything_is_there():
    plane = Plane(Memory(), zones=())
    view = watch(plane)
    text = shown(status_screen(view, 0), 80)
    assert "still reading the past" in text
    assert "none yet" in text
    assert "none joined yet" in text


def test_tasks_alone():
    _, view = finished()
    text = shown(tasks_table(view, view.now), 80)
    assert "toy" in text
    assert "Shards" not in text


def test_json_is_the_same(troubled):
    out = json.loads(json.dumps(to_json(troubled, troubled.now)))
    assert out["tasks"][0]["task"] == "toy"
    east = next(z for z in out["zones"] if z["zone"] == "east")
    assert east["identity"]["ok"] is True
    assert "silent" in {s["word"] for s in east["shards"]}
    assert any("silent" in p for p in out["problems"])
    assert "silent" in east["rounds"][0]["waits"]


def test_numbers_for_people():
    assert listed([0, 1, 2, 5, 7, 8]) == "0–2, 5, 7–8"
    assert [span(n) for n in (40, 12_000, 600_000, 7_200_000)] == ["0.0 s", "12 s", "10 min", "2.0 h"]
