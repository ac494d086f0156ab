"""`olearning watch`: one live screen in the terminal. The facts are the view's; the panels are `panels.py`'s."""

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import ClassVar, NoReturn, Protocol

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.events import Resize
from textual.widgets import Footer, Input, Static

from olearning.completing import remember
from olearning.errors import INTERRUPTED, OK, Trouble
from olearning.happenings import Event
from olearning.hosting import must_exist
from olearning.panels import PANELS, chosen, head, narrow
from olearning.snapshot import Snapshot
from olearning.view import View
from schemas.topics import GLOBAL, topic
from streams.kafka import Kafka, wall_clock

REDRAW = 1.0
"""Seconds between two looks."""
MOST = 1_000
"""Events that are kept."""


class Feed(Protocol):
    """Where the screen has its facts from."""

    where: str

    def snapshot(self) -> Snapshot: ...
    def events(self) -> Sequence[Event]: ...


@dataclass
class Live:
    """A view on a broker."""

    view: View
    where: str

    def snapshot(self) -> Snapshot:
        return self.view.snapshot(wall_clock())

    def events(self) -> Sequence[Event]:
        return self.view.drain()


class Body(VerticalScroll):
    """What is shown of a panel."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "app.turn(-1)", "panel", key_display="←"),
        Binding("right", "app.turn(1)", "panel", key_display="→"),
    ]


class Watch(App[int]):
    """The screen. It ends with the exit code."""

    TITLE = "olearning watch"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { background: $background; }
    #head, #tabs { height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
    #body { height: 1fr; scrollbar-size-vertical: 1; }
    #filter { display: none; height: 1; }
    #filter.shown { display: block; }
    #filter Static { width: auto; }
    #words { height: 1; border: none; padding: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "leave", "quit"),
        Binding("ctrl+c", "interrupt", "quit", show=False, priority=True),
        Binding("slash", "ask", "filter", key_display="/"),
        Binding("escape", "clear", "no filter"),
        Binding("space", "hold", "hold"),
        *(Binding(str(i), f"panel({i - 1})", p.name, show=False) for i, p in enumerate(PANELS, 1)),
    ]

    def __init__(self, feed: Feed):
        super().__init__()
        self.feed = feed
        self.shown = 0
        self.words = ""
        self.held: Snapshot | None = None
        self.happened: deque[Event] = deque(maxlen=MOST)

    def compose(self) -> ComposeResult:
        yield Static(id="head", markup=False)
        yield Static(id="tabs")
        with Body(id="body"):
            yield Static(id="panel")
        with Horizontal(id="filter"):
            yield Static("only with: ")
            yield Input(placeholder="words that a row must have; Enter keeps them, Esc shows all", id="words")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#body").focus()
        self.set_interval(REDRAW, self.redraw)
        self.redraw()

    def on_resize(self, event: Resize) -> None:
        if self.query("#panel"):  # the first comes before anything is there
            self.redraw()

    def redraw(self) -> None:
        """Look again, and show what there is."""
        self.happened.extend(self.feed.events())
        s = self.held or self.feed.snapshot()
        self.query_one("#head", Static).update(head(s, self.feed.where, self.held is not None))
        self.query_one("#tabs", Static).update(self._tabs())
        body = self.query_one("#body")
        width = body.content_size.width or self.size.width
        events = chosen(self.happened, self.words)
        self.query_one("#panel", Static).update(PANELS[self.shown].draw(narrow(s, self.words), events, width))

    def _tabs(self) -> Text:
        """The panels with their keys."""
        out = Text()
        for i, p in enumerate(PANELS):
            style = "bold reverse" if i == self.shown else ""
            out.append(f" {i + 1} {p.name} ", style=style)
        return out

    # ------------------------------------------------------------------ keys

    def action_panel(self, which: int) -> None:
        self.shown = which
        self.query_one("#body").scroll_home(animate=False)
        self.redraw()

    def action_turn(self, by: int) -> None:
        self.action_panel((self.shown + by) % len(PANELS))

    def action_hold(self) -> None:
        """Let the screen stand still, to read or to copy; or go on."""
        self.held = None if self.held else self.feed.snapshot()
        self.redraw()

    def action_ask(self) -> None:
        self.query_one("#filter").add_class("shown")
        self.query_one("#words").focus()

    def action_clear(self) -> None:
        self.query_one("#words", Input).value = ""
        self._typed("")

    def on_input_changed(self, event: Input.Changed) -> None:
        self.words = event.value.strip()
        self.redraw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._typed(event.value.strip())

    def _typed(self, words: str) -> None:
        self.words = words
        self.query_one("#filter").set_class(bool(words), "shown")
        self.query_one("#body").focus()
        self.redraw()

    def action_leave(self) -> None:
        self.exit(OK)

    def action_interrupt(self) -> None:
        self.exit(INTERRUPTED)


async def watch(namespace: str, where: str) -> int:
    """Show a namespace until somebody quits: the exit code. Raises `Trouble` and `BrokerGone` before the screen is taken over, and
    `Trouble` where the view cannot go on."""
    view = View(namespace)
    async with Kafka(where, view.name) as kafka:
        must_exist(await kafka.topics(), where, namespace, topic(namespace, GLOBAL, "ledger").name)

        async def read() -> NoReturn:
            stop = await kafka.host(view)
            raise Trouble(f"the view stopped: {stop.reason}")

        try:
            return await present(Watch(Live(view, where)), read())
        finally:
            remember(view)


async def present(app: Watch, work: Coroutine[None, None, NoReturn]) -> int:
    """Show it while this work goes on. Cancelled, or where the work fails, it gives the terminal back first."""
    working, showing = asyncio.create_task(work), asyncio.create_task(app.run_async())
    try:
        await asyncio.wait({showing, working}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
        return await showing or OK
    finally:
        app.exit(OK)
        working.cancel()
        await asyncio.gather(showing, working, return_exceptions=True)
