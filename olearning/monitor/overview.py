"""The first tab: whether a person is needed, the zones on their clock, what waits, and the tasks that come first."""

from collections.abc import Callable

from nicegui import ui

from olearning.happenings import VOID, Event
from olearning.monitor import charts
from olearning.monitor.board import Board
from olearning.monitor.facts import STATES, Facts, Tile, Wait, hands, states, states_words
from olearning.monitor.parts import Bar, Chart, Dial, Pager, Pool, Saying, Shows, Text
from olearning.snapshot import TaskView, ZoneView
from olearning.words import Say, event_say, local_say, phase_say

Open = Callable[[str], None]
MOST_TASKS, MOST_ZONES, MOST_WAITS, MOST_EVENTS = 6, 6, 5, 8


def card(title: str, classes: str = "") -> ui.element:
    """A section with its heading; to be used as a context."""
    box = ui.element("section").classes(f"card {classes}")
    with box:
        Text(title, "h2")
    return box


class TileBox(Shows[Tile]):
    def __init__(self) -> None:
        with ui.element("div").classes("card tile") as self.box:
            self.label = Text(classes="label")
            self.value = Saying("value")
            self.note = Text(classes="note")
        self.tone = ""

    def show(self, thing: Tile) -> None:
        self.label.text, self.note.text = thing.label, thing.note
        self.value.show(thing.value)
        if thing.value.tone != self.tone:
            self.box.classes(remove="good warn bad", add=thing.value.tone)
            self.tone = thing.value.tone


class ZoneLine(Shows[tuple[Facts, ZoneView]]):
    """A zone in three lines: its time and its light, its devices, its rounds."""

    def __init__(self) -> None:
        with ui.element("li").classes("zone") as self.box:
            with ui.element("div").classes("line"):
                self.name, self.time, self.light = Text(classes="name"), Saying("quiet-ish"), Saying("light")
            self.bar = Bar()
            self.devices = Text(classes="note")

    def show(self, thing: tuple[Facts, ZoneView]) -> None:
        f, z = thing
        self.name.text = z.zone
        self.time.show(local_say(z))
        self.light.show(f.zone_light(z))
        self.bar.show([(x if x in STATES else "other", n) for x, n in states(z.devices)])
        open_ = sum(r.state in ("open", "closed") for r in z.rounds)
        self.devices.text = f"{states_words(z)} · {open_} round{'' if open_ == 1 else 's'} open"


class TaskCard(Shows[tuple[Facts, TaskView]]):
    """A task: where it stands, how good it is, what it waits for."""

    def __init__(self, on_open: Open) -> None:
        self.task = ""
        with ui.element("article").classes("card task") as self.box:
            with ui.element("div").classes("line"):
                self.name = ui.button(on_click=lambda: on_open(self.task)).props("flat no-caps dense").classes("title")
                self.tenant = Text(classes="chip")
                self.phase = Saying("phase")
            with ui.element("div").classes("line figures"):
                with ui.element("div").classes("figure"):
                    Text("accuracy", classes="label")
                    self.accuracy = Text(classes="value")
                with ui.element("div").classes("figure"):
                    Text("epoch", classes="label")
                    self.epoch = Text(classes="value")
                with ui.element("div").classes("figure spark-box"):
                    self.spark_label = Text(classes="label")
                    self.spark = ui.html("", sanitize=False)
            self.bar = Bar()
            self.rounds = Text(classes="note")
            self.waits = Saying("waits", "p")

    def show(self, thing: tuple[Facts, TaskView]) -> None:
        f, t = thing
        self.task = t.task
        self.name.text, self.tenant.text = t.task, t.tenant
        self.tenant.set_visibility(bool(t.tenant))
        self.phase.show(phase_say(t))
        last = max(t.accuracy, default=None)
        self.accuracy.text = "–" if last is None else f"{t.accuracy[last]:.3f}"
        self.epoch.text = f"{t.epoch}/{t.epochs}" if t.epochs else "–"
        scores = [t.accuracy[e] for e in sorted(t.accuracy)]
        losses = [p.loss for _, r in f.rounds.get(t.task, ())[:1] for p in r.curve[-40:] if p.loss is not None]
        curve, label = (scores, "accuracy by epoch") if len(scores) > 2 else (losses, "loss by round")
        drawn = charts.spark(curve) if len(curve) > 2 else ""
        self.spark.content, self.spark_label.text = drawn, label if drawn else ""
        now = int(t.state in ("open", "closed"))
        self.bar.show([("done", max(0, t.epoch - now)), ("now", now), ("rest", max(0, t.epochs - t.epoch))])
        rounds = " · ".join(
            f"{z} {done}/{of}" if of else f"{z} {done}" for z, (done, of) in sorted(t.rounds.items())[:4]
        )
        more = len(t.rounds) - 4
        self.rounds.text = (
            f"rounds of this epoch: {rounds}{f' and {more} more zones' if more > 0 else ''}" if rounds else ""
        )
        self.waits.show(f.task_say(t))


class WaitLine(Shows[Wait]):
    def __init__(self, on_open: Open) -> None:
        self.task = ""
        with ui.element("li").classes("wait") as self.box:
            self.name = ui.button(on_click=lambda: on_open(self.task)).props("flat no-caps dense").classes("link")
            self.say = Saying()

    def show(self, thing: Wait) -> None:
        self.task, self.name.text = thing.task, f"{thing.task} · {thing.zone}"
        self.say.show(thing.say)


class EventLine(Shows[tuple[str, Event]]):
    """`when`: the time in words, and what happened."""

    def __init__(self) -> None:
        with ui.element("li").classes("event") as self.box:
            self.when, self.say = Text(tag="time"), Saying()

    def show(self, thing: tuple[str, Event]) -> None:
        self.when.text = thing[0]
        self.say.show(event_say(thing[1]))


class Overview:
    def __init__(self, board: Board, on_task: Open, when: Callable[[int], str]) -> None:
        self.board, self.when = board, when
        tiles = ui.element("div").classes("tiles")
        self.tiles: Pool[Tile] = Pool(TileBox, tiles)
        with ui.element("div").classes("grid dial-and-zones"):
            with card("Zones by their local time", "centred"):
                self.dial = Dial()
            with card("Zones"):
                Key()
                zones = ui.element("ul").classes("plain")
                self.zones: Pool[tuple[Facts, ZoneView]] = Pool(ZoneLine, zones)
                self.zone_pages = Pager(MOST_ZONES, "zones", self.show)
            with card("What waits, and for what"):
                waits = ui.element("ul").classes("plain")
                self.waits: Pool[Wait] = Pool(lambda: WaitLine(on_task), waits)
                self.more_waits = Saying("quiet")
        with ui.element("section").props('aria-label="Tasks"'):
            with ui.element("div").classes("line heading"):
                Text("Tasks", "h2")
                self.task_pages = Pager(MOST_TASKS, "tasks", self.show)
            cards = ui.element("div").classes("grid cards")
            self.no_task = Saying("quiet")
            self.tasks: Pool[tuple[Facts, TaskView]] = Pool(lambda: TaskCard(on_task), cards)
        with ui.element("div").classes("grid two"):
            with card("Delta blocks, the last minutes"):
                self.deltas = Chart()
            with card("Accuracy by epoch, on held-out data"):
                self.accuracy = Chart()
        with card("What happened last"):
            events = ui.element("ol").classes("plain events")
            self.events: Pool[tuple[str, Event]] = Pool(EventLine, events)

    def show(self) -> None:
        f, trend = self.board.facts, self.board.trend
        self.tiles.show(f.tiles(trend.rate(lambda s: s.blocks), trend.rate(lambda s: s.counted)))
        devices = f.devices
        awake = sum(devices.values()) - devices.get("asleep", 0)
        timed = hands(f)
        note = "devices awake" if timed else "devices awake; no fleet says its local time"
        self.dial.show(timed, f"{awake:,} of {sum(devices.values()):,}", note)
        self.zones.show([(f, z) for z in self.zone_pages.cut(f.zones_ranked)])
        waits, n = f.waits(MOST_WAITS)
        self.waits.show(waits)
        self.more_waits.show(
            Say("nothing waits" if not n else f"and {n - len(waits):,} more, see the tasks" if n > len(waits) else "")
        )
        ranked = f.tasks_ranked
        self.tasks.show([(f, t) for t in self.task_pages.cut(ranked)])
        self.no_task.show(Say("" if ranked else "No task yet: olearning submit FILE"))
        self.deltas.show(charts.deltas(trend))
        self.accuracy.show(charts.accuracy(ranked))
        told = [e for e in reversed(self.board.events) if e.kind != VOID][:MOST_EVENTS]
        self.events.show([(self.when(e.at), e) for e in told])


class Key:
    """Which colour of a bar is which state of a device."""

    def __init__(self) -> None:
        with ui.element("p").classes("key note") as self.box:
            for x in STATES:
                with ui.element("span").classes("one"):
                    ui.element("i").classes(f"part {x}").props("aria-hidden=true")
                    Text(x)
