"""The page's widgets: each is shown again and again, and sends the browser only what changed since."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, Generic, TypeVar

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from olearning.monitor.charts import Drawn
from olearning.monitor.facts import Hand
from olearning.words import Say

T = TypeVar("T")


class Text(TextElement):
    """An element of any tag with text. Setting the text it has sends nothing."""

    def __init__(self, text: str = "", tag: str = "span", classes: str = "") -> None:
        super().__init__(tag=tag, text=text)
        self.classes(classes)


class Saying:
    """Words with a sign before them and a tone."""

    def __init__(self, classes: str = "", tag: str = "span") -> None:
        with ui.element(tag).classes(f"say {classes}") as self.box:
            self.sign, self.text = Text(classes="sign").props("aria-hidden=true"), Text()
        self.shown: Say | None = None

    def show(self, say: Say) -> None:
        if say == self.shown:
            return
        if self.shown is None or self.shown.tone != say.tone:
            self.box.classes(remove="good warn bad quiet", add=say.tone)
        self.shown = say
        self.sign.text, self.text.text = say.sign, say.text
        self.sign.set_visibility(bool(say.sign))
        self.box.set_visibility(bool(say.text))


class Chart:
    """A chart that is sent anew when it changed; its words are its label."""

    def __init__(self, height: str = "14rem") -> None:
        self.box = ui.echart({"series": []}, renderer="svg").classes("chart").style(f"height: {height}")
        self.box.props("role=img")
        self.shown: Drawn | None = None

    def show(self, drawn: Drawn) -> None:
        if drawn == self.shown:
            return
        self.shown = drawn
        options, words = drawn
        self.box.options.clear()
        self.box.options.update(options)
        self.box.props["aria-label"] = words
        self.box.update()


class Pool(Generic[T]):
    """As many widgets as there are things to show, made once and used again."""

    def __init__(self, make: Callable[[], "Shows[T]"], within: Element) -> None:
        self.make, self.within = make, within
        self.made: list[Shows[T]] = []

    def show(self, things: Sequence[T]) -> None:
        with self.within:
            while len(self.made) < len(things):
                self.made.append(self.make())
        for n, widget in enumerate(self.made):
            widget.box.set_visibility(n < len(things))
        for widget, thing in zip(self.made, things, strict=False):
            widget.show(thing)


class Shows(Generic[T]):
    """A widget in a box of its own."""

    box: Element

    def show(self, thing: T) -> None:
        raise NotImplementedError


class Pager:
    """Which part of many things is on the page."""

    def __init__(self, size: int, what: str, changed: Callable[[], None]) -> None:
        self.size, self.what, self.changed, self.page = size, what, changed, 0
        with ui.element("nav").classes("pager").props(f'aria-label="Pages of {what}"') as self.box:
            self.back = self._button("‹", f"Earlier {what}", -1)
            self.words = Text()
            self.on = self._button("›", f"Further {what}", 1)

    def _button(self, text: str, label: str, step: int) -> ui.button:
        button = ui.button(text, on_click=lambda: self._go(step))
        return button.props(f'flat dense no-caps aria-label="{label}"')

    def _go(self, step: int) -> None:
        self.page += step
        self.changed()

    def cut(self, things: Sequence[T]) -> Sequence[T]:
        """Those on this page."""
        pages = max(1, -(-len(things) // self.size))
        self.page = min(max(0, self.page), pages - 1)
        first = self.page * self.size
        part = things[first : first + self.size]
        self.words.text = f"{first + 1:,}–{first + len(part):,} of {len(things):,}" if part else "none"
        self.back.set_enabled(self.page > 0)
        self.on.set_enabled(self.page < pages - 1)
        self.box.set_visibility(pages > 1)
        return part


Row = dict[str, Any]
CELL = """
<q-td :props="props" :data-label="props.col.label">
  <button v-if="props.value.opens" class="link" @click="$parent.$emit('open', props.row.id)">{{ props.value.text }}</button>
  <span v-else :class="'say ' + props.value.tone"
    ><span v-if="props.value.sign" class="sign" aria-hidden="true">{{ props.value.sign }}</span><span>{{ props.value.text }}</span></span>
</q-td>
"""


class Table:
    """A table, cut into pages here so that the browser gets no more than it shows. A column whose name begins with '>' holds numbers; the first one
    opens the row where `on_open` is given."""

    def __init__(
        self,
        label: str,
        columns: Sequence[str],
        size: int = 12,
        on_open: Callable[[str], None] | None = None,
        none: str = "none",
    ):
        self.names, self.opens, self.none = [c.removeprefix(">") for c in columns], on_open, none
        made = [
            {
                "name": c.removeprefix(">"),
                "label": c.removeprefix(">"),
                "field": c.removeprefix(">"),
                "align": "right" if c[0] == ">" else "left",
            }
            for c in columns
        ]
        with ui.element("div").classes("tablebox") as self.box:
            self.table = ui.table(rows=[], columns=made, row_key="id").classes("table")
            self.table.props(f'flat dense table-aria-label="{label}" aria-label="{label}" no-data-label="{none}"')
            self.table.add_slot("body-cell", CELL)
            if on_open:
                self.table.on("open", lambda e: on_open(e.args))
            self.pager = Pager(size, label.lower(), self._again)
        self.all: Sequence[tuple[str, Sequence[Any]]] = ()
        self.shown: list[Row] | None = None

    def show(self, rows: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """Each row: its key and its cells, text or `Say`."""
        self.all = rows
        self._again()

    def _again(self) -> None:
        new: list[Row] = [{"id": key} | self._cells(cells) for key, cells in self.pager.cut(self.all)]
        if new != self.shown:
            self.shown = new
            self.table.rows = new
            self.table.update()

    def _cells(self, cells: Sequence[Any]) -> dict[str, Any]:
        out = {n: _cell(c) for n, c in zip(self.names, cells, strict=True)}
        if self.opens:
            first = self.names[0]
            out[first]["opens"] = True
        return out


def _cell(c: Any) -> dict[str, Any]:
    return {"text": c.text, "tone": c.tone, "sign": c.sign} if isinstance(c, Say) else {"text": str(c), "tone": ""}


class Bar:
    """Parts of a whole as a bar. Its words stand beside it, so it is hidden from who hears the page."""

    def __init__(self) -> None:
        self.html = ui.html("", sanitize=False).classes("bar").props("aria-hidden=true")

    def show(self, parts: Sequence[tuple[str, int]]) -> None:
        """`parts`: a class of the style each, and how many."""
        self.html.content = "".join(
            f'<i class="part {escape(kind, quote=True)}" style="flex-grow:{n}"></i>' for kind, n in parts if n
        )


REACH = 42
"""How far from the middle of the dial its marks stand, in percent of its width."""


class Dial:
    """The day as a ring: noon above, midnight below; each zone's mark goes round with its clock."""

    def __init__(self) -> None:
        with ui.element("div").classes("dial"):
            ui.element("div").classes("sky").props("aria-hidden=true")
            for hour, place in ((12, "n"), (18, "e"), (0, "s"), (6, "w")):
                Text(f"{hour}", classes=f"hour {place}").props("aria-hidden=true")
            self.marks = ui.element("div").classes("marks")
            with ui.element("div").classes("centre"):
                self.value, self.note = Text(classes="value"), Text(classes="note")
        self.made: dict[str, _Mark] = {}

    def show(self, hands: Sequence[Hand], value: str, note: str) -> None:
        self.value.text, self.note.text = value, note
        here = {h.zones[0]: h for h in hands}
        with self.marks:
            for zone in here.keys() - self.made.keys():
                self.made[zone] = _Mark()
        for zone, mark in self.made.items():
            mark.box.set_visibility(zone in here)
            if zone in here:
                mark.show(here[zone])


class _Mark:
    def __init__(self) -> None:
        with ui.element("div").classes("mark") as self.box:
            self.dot, self.label = Text("●", classes="dot").props("aria-hidden=true"), Text()
        self.tone = ""

    def show(self, hand: Hand) -> None:
        """Where it stands, in percent of the dial: noon is above, and it goes clockwise."""
        angle = (hand.hours - 12) * math.tau / 24
        self.box.style(f"left: {50 + REACH * math.sin(angle):.1f}%; top: {50 - REACH * math.cos(angle):.1f}%")
        if hand.tone != self.tone:
            self.dot.classes(remove="good bad", add=hand.tone)
            self.dot.text = "●" if hand.tone == "good" else "▲"
            self.tone = hand.tone
        self.label.text = hand.label
