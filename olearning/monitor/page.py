"""The page: a head that says whether a person is needed, and tabs. One for each browser that looks."""

from pathlib import Path
from typing import Protocol

from nicegui import ui

from olearning.figures import clock
from olearning.monitor.board import Board
from olearning.monitor.details import Deltas, Events, Sharing, Tasks, Zones
from olearning.monitor.overview import Overview
from olearning.monitor.parts import Pool, Saying, Shows, Text
from olearning.words import live

STYLE = Path(__file__).with_name("page.css").read_text()
WATCH = Path(__file__).with_name("page.js").read_text()
TABS = ("Overview", "Tasks", "Zones", "Deltas", "Sharing", "Events")
MARK = (
    '<svg viewBox="0 0 32 32" width="28" height="28" aria-hidden="true"><circle cx="16" cy="16" r="13" fill="none" '
    'stroke="currentColor" stroke-width="3" stroke-dasharray="58 24" stroke-linecap="round" transform="rotate(-58 16 16)"/>'
    '<circle cx="16" cy="16" r="4.5" fill="currentColor"/></svg>'
)


class Tab(Protocol):
    def show(self) -> None: ...


class Problem(Shows[str]):
    def __init__(self) -> None:
        with ui.element("li") as self.box:
            self.text = Text()

    def show(self, thing: str) -> None:
        self.text.text = thing


class Page:
    def __init__(self, board: Board, tab: str = "", task: str = "") -> None:
        self.board, self.beat = board, -1
        ui.add_css(STYLE)
        ui.add_body_html(f"<script>{WATCH}</script>")
        self.dark = ui.dark_mode(None)
        with ui.element("header").classes("top").props("role=banner"):
            ui.html(MARK, sanitize=False).classes("mark-o")
            with ui.element("div").classes("names"):
                Text("OLearning", "h1")
                self.namespace = Text(classes="note")
            self.light = Saying("light big")
            with ui.element("div").classes("fresh"):
                self.live = Saying("live")
                self.pulse = Text(classes="pulse").props("aria-hidden=true")
            turn = ui.button(icon="contrast", on_click=self._turn).props('flat round dense aria-label="Dark or light"')
            turn.classes("turn")
        self.light.box.props("role=status aria-live=polite")
        ui.element("div").classes("stale").props("role=alert")
        with (
            ui.tabs(on_change=lambda e: self._turned(e.value))
            .classes("tabs")
            .props(
                'no-caps inline-label outside-arrows mobile-arrows align=left aria-label="Parts of this page"'
            ) as self.tabs
        ):
            for name in TABS:
                ui.tab(name)
        with ui.element("div").classes("page") as main:  # NiceGUI has put it in a main element
            with (
                ui.element("ul")
                .classes("card problems plain bad")
                .props('aria-label="To look at"') as self.problems_box
            ):
                self.problems: Pool[str] = Pool(Problem, self.problems_box)
            first = tab if tab in TABS else TABS[0]
            with ui.tab_panels(self.tabs, value=first, animated=False).classes("panels"):
                self.shown: dict[str, Tab] = {}
                for name in TABS:
                    with ui.tab_panel(name):
                        self.shown[name] = self._make(name)
        ui.skip_link("To the content", target=main)
        self.tasks.task = task
        self.tick()
        ui.timer(0.5, self.tick)

    def _make(self, name: str) -> Tab:
        match name:
            case "Overview":
                return Overview(self.board, self.open_task, clock)
            case "Tasks":
                self.tasks = Tasks(self.board, self.open_task)
                return self.tasks
            case "Zones":
                return Zones(self.board)
            case "Deltas":
                return Deltas(self.board)
            case "Sharing":
                return Sharing(self.board)
        return Events(self.board, clock)

    def open_task(self, task: str) -> None:
        """Show a task in full; "": close it."""
        self.tasks.task = task
        if task:
            self.tabs.set_value("Tasks")
            ui.run_javascript("window.scrollTo({top: 0})")
        self._turned(str(self.tabs.value))

    def _turned(self, name: str) -> None:
        """Another tab is on top: it shows what there is now, and the address leads to it."""
        if not hasattr(self, "tasks"):
            return  # it is still being made
        task = f"&task={self.tasks.task}" if name == "Tasks" and self.tasks.task else ""
        ui.navigate.history.replace(f"?tab={name}{task}")
        self.shown[name].show()

    async def _turn(self) -> None:
        dark = await ui.run_javascript("return document.body.classList.contains('body--dark')")
        self.dark.set_value(not dark)

    def tick(self) -> None:
        """Show what is new, of what can be seen."""
        if self.beat == self.board.beat:
            return
        self.beat = self.board.beat
        f = self.board.facts
        self.namespace.text = f"{f.s.namespace} · led by {f.s.leader or 'nobody'}"
        self.light.show(f.light)
        self.live.show(live(f.s))
        self.pulse.text = str(self.beat)
        self.problems_box.set_visibility(len(f.problems) > 0)
        self.problems.show(f.problems_shown)
        self.shown[str(self.tabs.value)].show()
