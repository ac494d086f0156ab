"""The terminal view, driven by its keys: what it shows, in small and in wide terminals, and how it ends."""

import asyncio
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot

from olearning import terminal
from olearning.errors import INTERRUPTED, OK
from olearning.happenings import Event
from olearning.panels import PANELS, chosen, head, narrow, spark
from olearning.snapshot import Identity, LocalView, Snapshot
from olearning.terminal import Live, Watch
from olearning.words import local_say
from streams.memory import Memory
from streams.processor import Send
from tests.olearning.watched import score, watch
from tests.plane import NS, Plane, spec

SMALL, WIDE = (80, 24), (200, 60)


@pytest.fixture(scope="module")
def seen() -> tuple[Snapshot, list[Event]]:
    """Two tasks at work, a scheduler, a dead letter; and in the west nobody adds anything up any more."""
    plane = Plane(Memory(seed=2), scheduler=True)
    view = watch(plane)
    for task in ("toy", "other"):
        plane.submit(spec(task, epochs=50))
    plane.memory.run(limit=4_000)
    for epoch in range(20):
        score(plane, epoch, 0.1 + 0.04 * epoch)
    for n in range(2):
        plane.hosts[f"agg-west-{n}"].crash()
    plane.memory.append(Send(f"{NS}.east.registrations", b"\xff\x00", "x"))
    plane.memory.run(limit=8_000)
    return view.snapshot(view.now), view.drain()


class Made:
    """Facts that a test makes."""

    where = "broker:9092"

    def __init__(self, s: Snapshot, events: Sequence[Event] = ()):
        self.s, self.new = s, list(events)

    def snapshot(self) -> Snapshot:
        return self.s

    def events(self) -> Sequence[Event]:
        out, self.new = self.new, []
        return out


def text(app: Watch) -> str:
    """What the terminal shows now."""
    return "\n".join("".join(part.text for part in row) for row in app.screen._compositor.render_strips())


def driven(feed: Any, size: tuple[int, int], play: Callable[[Watch, Pilot[int]], Coroutine[Any, Any, None]]) -> Watch:
    """The screen as a test plays it."""
    app = Watch(feed)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            while "q quit" not in text(app):  # the last thing to be drawn
                await pilot.pause(0.02)
            await play(app, pilot)

    asyncio.run(run())
    return app


WORDS = {
    "tasks": ("toy", "other", "▁", "█ 0.860", "● execution", "default"),
    "zones": (
        "no local time",
        "led by",
        "Rounds that are over",
        "round",
        "since",
        "holds it and",
        "Order",
        "by name",
        "wanted",
    ),
    "shards": ("? silent", "agg-west-0", "committed up to", "token", "toy"),
    "blocks": ("training", "in log", "adds up", "counted + 0 duplicate", "Dead letters: 1"),
    "tenants": ("by weight", "100%", "default", "bytes today"),
    "queue": ("What waits", "deltas", "eligible"),
    "events": ("· round", "· leader"),
}


def test_every_panel_is_a_key_away(seen: tuple[Snapshot, list[Event]]) -> None:
    async def play(app: Watch, pilot: Pilot[int]) -> None:
        first = text(app)
        for words in ("● live", "test at broker:9092, led by global", "east ✓ yes", "to look at", "1 all", "q quit"):
            assert words in first, words
        for number, panel in enumerate(PANELS[1:], 2):
            await pilot.press(str(number))
            shown, body = text(app), app.query_one("#body")
            while not body.is_vertical_scroll_end:
                body.scroll_page_down(animate=False)
                await pilot.pause()
                shown += text(app)
            for words in WORDS[panel.name]:
                assert words in shown, (panel.name, words, shown)
        await pilot.press("right")  # from the last to the first
        assert app.shown == 0
        await pilot.press("left", "left")
        assert PANELS[app.shown].name == "queue"

    driven(Made(*seen), SMALL, play)


def test_a_wide_terminal_shows_all_at_once(seen: tuple[Snapshot, list[Event]]) -> None:
    async def play(app: Watch, pilot: Pilot[int]) -> None:
        shown = text(app)
        for words in ("Tasks", "█ 0.860", "Zones", "Order", "Shards", "? silent", "Blocks", "Tenants", "Events"):
            assert words in shown, (words, shown)

    driven(Made(*seen), WIDE, play)


def test_rows_are_filtered_and_come_back(seen: tuple[Snapshot, list[Event]]) -> None:
    async def play(app: Watch, pilot: Pilot[int]) -> None:
        await pilot.press("3", "slash", *"other", "space", *"open", "enter")
        shown = text(app)
        assert app.words == "other open"
        assert "only with: other open" in shown
        assert "\nwest  other" in shown
        assert "\nwest  toy" not in shown
        await pilot.press("escape")
        assert "only with" not in text(app)
        assert "\nwest  toy" in text(app)

    driven(Made(*seen), SMALL, play)


def test_a_broker_that_is_away_and_an_identity_that_is_broken_are_said(seen: tuple[Snapshot, list[Event]]) -> None:
    s = seen[0]
    feed = Made(s)

    async def play(app: Watch, pilot: Pilot[int]) -> None:
        feed.s = replace(s, away=12_000)
        app.redraw()
        await pilot.pause()
        assert "✗ as of" in text(app)
        broken = replace(s.zones[0].rounds[0], total=Identity(offsets=5, counted=4, problem="5 offsets, 4 outcomes"))
        east = replace(s.zones[0], rounds=(broken,))
        feed.s = replace(s, zones=(east, s.zones[1]))
        await pilot.press("5")
        shown = text(app)
        assert "● live" in shown
        assert "east ✗ NO" in shown
        assert "5 offsets, 4 outcomes" in shown

    driven(feed, SMALL, play)


def test_it_stands_still_while_one_reads(seen: tuple[Snapshot, list[Event]]) -> None:
    feed = Made(seen[0])

    async def play(app: Watch, pilot: Pilot[int]) -> None:
        await pilot.press("space")
        feed.s = replace(seen[0], tasks=())
        await pilot.press("2")
        assert "■ held at" in text(app)
        assert "toy" in text(app)
        await pilot.press("space")
        assert "● live" in text(app)
        assert "toy" not in text(app)

    driven(feed, SMALL, play)


@pytest.mark.parametrize(("key", "code"), [("q", OK), ("ctrl+c", INTERRUPTED)])
def test_keys_that_end_it(seen: tuple[Snapshot, list[Event]], key: str, code: int) -> None:
    async def play(app: Watch, pilot: Pilot[int]) -> None:
        await pilot.press(key)

    assert driven(Made(seen[0]), SMALL, play).return_value == code


def test_the_view_s_silence_is_the_broker_s(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = Plane(Memory(seed=2))
    view = watch(plane)
    plane.memory.run(limit=2_000)
    monkeypatch.setattr(terminal, "wall_clock", lambda: view.heard + 60_000)
    s = Live(view, "broker:9092").snapshot()
    assert s.away == 60_000
    assert "✗ as of" in (said := head(s, "broker:9092").plain)
    assert "no answer for 60 s" in said


CHILD = """
import asyncio, sys
import typer
from olearning.cli import on_terminate
from olearning.hosting import drive
from olearning.snapshot import Snapshot
from olearning.terminal import Watch, present
from tests.olearning.test_terminal import Made

async def work():
    await asyncio.Event().wait()

on_terminate()
try:
    drive(lambda: present(Watch(Made(Snapshot(0, "test", True, "", 0, (), (), {}, {}))), work()))
except typer.Exit as e:
    sys.exit(e.exit_code)
"""


@pytest.mark.program
def test_sigterm_gives_the_terminal_back() -> None:
    mine, its = pty.openpty()
    before = termios.tcgetattr(its)
    env = os.environ | {"TERM": "xterm-256color", "LINES": "24", "COLUMNS": "80"}
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=its, stdout=its, stderr=its, env=env)
    said, end = b"", time.monotonic() + 30
    while b"no filter" not in said:  # the footer: it is drawn
        assert time.monotonic() < end, said
        if select.select([mine], [], [], 0.1)[0]:
            said += os.read(mine, 65_536)
    assert termios.tcgetattr(its) != before
    child.send_signal(signal.SIGTERM)
    while child.poll() is None or select.select([mine], [], [], 0.1)[0]:
        assert time.monotonic() < end, said
        if select.select([mine], [], [], 0.1)[0]:
            said += os.read(mine, 65_536)
    assert child.returncode == OK, said
    assert b"Traceback" not in said
    assert said.rindex(b"\x1b[?1049l") > said.rindex(b"\x1b[?1049h")  # back on the first screen
    assert b"\x1b[?25h" in said[said.rindex(b"\x1b[?1049h") :]  # with a cursor
    assert termios.tcgetattr(its) == before
    os.close(mine)
    os.close(its)


def test_curves_and_filters() -> None:
    assert spark([]) == ""
    assert spark([1, 1]) == "▁▁"
    assert spark([0, 7, 3.5]) == "▁█▅"
    assert spark(list(range(100)), 4) == "▁▃▆█"
    events = [Event(0, "east", "round", "east: toy round 1 opened"), Event(1, "global", "task", "global: toy ended")]
    assert chosen(events, "TOY round") == events[:1]
    assert chosen(events, "") == events


def test_a_zone_s_time_and_a_filter_that_keeps_it_whole(seen: tuple[Snapshot, list[Event]]) -> None:
    s = seen[0]
    assert narrow(s, " ") is s
    assert str(local_say(replace(s.zones[0], local=LocalView(23.5, True, 60_000)))) == "☾ 23:30 night"
    (east,) = narrow(s, "east").zones
    assert east is s.zones[0]
    assert [r.task for z in narrow(s, "other").zones for r in z.rounds] == ["other", "other"]
    assert {x.word for z in narrow(s, "silent").zones for x in z.shards} == {"silent"}
    assert narrow(s, "nothing like it").zones == ()
