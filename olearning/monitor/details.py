"""The other tabs: tasks, zones with their shards, deltas with the identity, who comes first and who gets what, events."""

from collections.abc import Callable, Sequence

from nicegui import ui

from olearning.figures import size, span
from olearning.monitor import charts
from olearning.monitor.board import Board
from olearning.monitor.facts import (
    Facts,
    matching,
    states_words,
)
from olearning.monitor.overview import Open, card
from olearning.monitor.parts import Chart, Saying, Table, Text
from olearning.places import place_words
from olearning.snapshot import SHARD_WORDS, RoundView, ZoneView
from olearning.tables import percent, queue_rows, tenant_tasks
from olearning.words import Say, adds_up, equation, event_say, local_say, phase_say, shard_say

KINDS = ("task", "epoch", "round", "shard", "leader", "tenant", "evaluation", "letter", "objection", "loss", "void")
MORE_KINDS = 100


class Tasks:
    """All tasks; the one that is open in full."""

    def __init__(self, board: Board, on_task: Open) -> None:
        self.board, self.task, self.text = board, "", ""
        with ui.element("section").classes("card detail") as self.box:
            with ui.element("div").classes("line"):
                self.name, self.tenant, self.phase = Text(tag="h2"), Text(classes="chip"), Saying("phase")
                close = ui.button("Close", on_click=lambda: on_task("")).props("flat no-caps dense")
                close.classes("last").props('aria-label="Close this task"')
            self.say = Saying("waits", "p")
            with ui.element("div").classes("grid two"):
                with ui.element("div"):
                    Text("Loss by round, as devices had it", "h3")
                    self.losses = Chart("16rem")
                with ui.element("div"):
                    Text("By epoch, on held-out data", "h3")
                    self.held_out = Chart("16rem")
            self.rounds = Table("Rounds by zone", ("zone", "round", "state", ">deltas", ">slots", ">left", ">loss", "place in the plan", "waits for"))  # fmt: skip
            self.identity = Table("What became of its blocks", ("zone", "light", "every offset", ">unread"))
        with card("Tasks"):
            filters = ui.input(placeholder="name, tenant or state", on_change=lambda e: self._filter(e.value))
            filters.props('dense outlined clearable aria-label="Filter tasks"').classes("filter")
            columns: Sequence[str] = (
                "task",
                "tenant",
                "state",
                ">epoch",
                "rounds by zone",
                ">accuracy",
                ">loss",
                "what it waits for",
            )
            self.table = Table("Tasks", columns, 15, on_task, "no task like that")

    def _filter(self, text: str | None) -> None:
        self.text = (text or "").lower()
        self.show()

    def show(self) -> None:
        f = self.board.facts
        self._detail(f)
        rows = []
        for t in f.tasks_ranked:
            phase = phase_say(t)
            if self.text and not any(self.text in x for x in (t.task, t.tenant, phase.text)):
                continue
            last = max(t.accuracy, default=None)
            rounds = "  ".join(f"{z} {n}/{of}" for z, (n, of) in sorted(t.rounds.items())[:4])
            rows.append((t.task, (
                t.task, t.tenant, phase, f"{t.epoch}/{t.epochs}" if t.epochs else "–",
                rounds + (" …" if len(t.rounds) > 4 else ""),
                "–" if last is None else f"{t.accuracy[last]:.3f}", "–" if last is None else f"{t.losses[last]:.3f}",
                f.task_say(t),
            )))  # fmt: skip
        self.table.show(rows)

    def _detail(self, f: Facts) -> None:
        t = f.s.task(self.task)
        self.box.set_visibility(t is not None)
        if t is None:
            return
        self.name.text, self.tenant.text = t.task, t.tenant
        self.tenant.set_visibility(bool(t.tenant))
        self.phase.show(phase_say(t))
        self.say.show(f.task_say(t))
        rounds = f.rounds.get(t.task, [])
        self.losses.show(charts.losses(rounds))
        self.held_out.show(charts.held_out(t))
        self.rounds.show([(z.zone, self._round(f, z, r)) for z, r in rounds])
        self.identity.show(
            [(z.zone, (z.zone, adds_up(r.total), equation(r.total), f"{r.unread:,}")) for z, r in rounds]
        )

    def _round(self, f: Facts, z: ZoneView, r: RoundView) -> Sequence[object]:
        left = "–" if r.deadline_left is None else span(max(0, r.deadline_left))
        loss = "–" if r.mean_loss is None else f"{r.mean_loss:.4f}"
        taken = max(0, r.registered - r.lapsed)
        waits = f.wait_say(z, r) if r.waits else ""
        place = place_words(r.place, f.s.policy) if r.state == "open" else "–"
        return z.zone, r.round, r.state, f"{r.devices}/{r.demand}", f"{taken}/{r.places}", left, loss, place, waits


class Zones:
    """Who leads and holds what, and how far behind they are."""

    def __init__(self, board: Board) -> None:
        self.board = board
        with card("Zones"):
            columns: Sequence[str] = (
                "zone",
                "light",
                "local time",
                "led by",
                "devices",
                ">seen in a day",
                "aggregators",
                ">unread",
            )
            self.zones = Table("Zones", columns, 12, none="no zone joined yet")
        with card("Shards"):
            Text("Who reads which part of the delta logs, under which token of the ledger, and how much is unread. "
                 "Those that need a person come first.", "p", "note")  # fmt: skip
            columns = ("shard", "status", "owner", ">token", ">unread", "next offset by task")
            self.shards = Table("Shards", columns, 16, none="no shard yet")
        with card("Processes that report"):
            self.sources = Table(
                "Processes that report", ("process", "zone", "what", "status", ">blocks", ">moved"), 12
            )

    def show(self) -> None:
        f = self.board.facts
        self.zones.show([(z.zone, self._zone(f, z)) for z in f.zones_ranked])
        shards = [(z, x) for z in f.s.zones for x in z.shards]
        shards.sort(key=lambda p: (-SHARD_WORDS.index(p[1].word), p[0].zone, p[1].shard))
        rows = []
        for z, x in shards:
            ahead = ", ".join(f"{t} {n:,}" for t, n in sorted(x.next.items())[:3]) + (" …" if len(x.next) > 3 else "")
            key = f"{z.zone}/{x.shard}"
            rows.append((key, (key, shard_say(x.word), x.holder or Say("nobody", "bad", "✗"), x.token, f"{x.unread:,}", ahead or "–")))  # fmt: skip
        self.shards.show(rows)
        sources = []
        for z in f.s.zones:
            for what, those in (("aggregator", z.aggregators), ("fleet", z.fleets)):
                for s in those:
                    ago = span(f.s.at - s.heard)
                    heard = Say(f"silent for {ago}", "bad", "?") if s.silent else Say("reports", "good", "✓")
                    sources.append((s.name, (s.name, z.zone, what, heard, f"{s.blocks:,}", size(s.bytes))))
        self.sources.show(sorted(sources, key=lambda row: (row[1][3].tone == "good", row[0])))

    def _zone(self, f: Facts, z: ZoneView) -> Sequence[object]:
        led = f"{z.leader} (token {z.leader_token})"
        leader = Say("nobody", "bad", "✗") if not z.leader_token else Say(led, "bad", "?") if z.leader_silent else led
        silent = sum(a.silent for a in z.aggregators)
        there = f"{len(z.aggregators) - silent} there" + (f", {silent} silent" if silent else "")
        wanted: object = there
        if z.schedule and not z.schedule.silent:
            fits = z.schedule.wanted == z.schedule.workers
            wanted = Say(f"{there}, {z.schedule.wanted} wanted: {z.schedule.wanted_why}", "" if fits else "warn", "" if fits else "▲")  # fmt: skip
        seen = "–" if z.seen is None else f"{z.seen:,}"
        return z.zone, f.zone_light(z), local_say(z), leader, states_words(z), seen, wanted, f"{z.unread:,}"


class Deltas:
    """Delta blocks: how many come, what becomes of each, and that it adds up."""

    def __init__(self, board: Board) -> None:
        self.board = board
        with card("Is every offset accounted for?"):
            Text("Each block that a commit covers has exactly one outcome: counted, duplicate, late, invalid or incomplete; "
                 "or it is held until the rest of its delta comes.", "p", "note")  # fmt: skip
            self.light = Saying("big")
            self.equation = Text(tag="p", classes="equation")
            columns: Sequence[str] = ("zone", "light", ">offsets", ">counted", ">duplicate", ">late", ">invalid", ">incomplete", ">held", ">lost")  # fmt: skip
            self.table = Table("Blocks by zone", columns, 12)
        with card("Delta blocks a second, the last minutes"):
            self.chart = Chart("18rem")
        with ui.element("div").classes("grid two"):
            with card("On their way"):
                self.way = Table("On their way", ("zone", "task", ">in log", ">unread", "round's segment"), 10, none="nothing")  # fmt: skip
            with card("Dead letters"):
                Text("What could not be read or was refused, by reason.", "p", "note")
                self.letters = Table("Dead letters", (">how many", "reason"), 10, none="none")

    def show(self) -> None:
        f, s = self.board.facts, self.board.facts.s
        self.light.show(adds_up(f.identity))
        self.equation.text = equation(f.identity)
        rows = []
        for z in sorted(s.zones, key=lambda z: (z.identity.ok, z.zone)):
            i = z.identity
            counts = (i.offsets, i.counted, i.duplicate, i.late, i.invalid, i.incomplete, i.held, i.lost)
            rows.append((z.zone, (z.zone, adds_up(i), *(f"{n:,}" for n in counts))))
        self.table.show(rows)
        self.chart.show(charts.deltas(self.board.trend))
        way = [(z, r) for z in s.zones for r in z.rounds if r.state in ("open", "closed")]
        way.sort(key=lambda p: (-p[1].unread, p[0].zone, p[1].task))
        self.way.show([(f"{z.zone}/{r.task}", (z.zone, r.task, f"{r.blocks:,}", f"{r.unread:,}", equation(r.segment))) for z, r in way])  # fmt: skip
        self.letters.show([(reason, (f"{n:,}", reason)) for reason, n in s.letters.items()])


class Sharing:
    """Who comes first, and who gets what."""

    def __init__(self, board: Board) -> None:
        self.board = board
        with card("The scheduler's order"):
            Text("Which of a tenant's tasks aggregators work for first, and why.", "p", "note")
            self.order = Table("The scheduler's order", ("zone", ">place", "task", "why"), 12, none="no scheduler was heard of")  # fmt: skip
        with card("What waits for devices"):
            columns: Sequence[str] = (
                "task",
                "zone",
                "tenant",
                ">round",
                ">slots",
                ">deltas",
                ">eligible",
                ">since",
                "place in the plan",
                "waits for",
            )
            self.queue = Table("What waits for devices", columns, 10, none="nothing")
        with card("Tenants"):
            self.policy = Text(tag="p", classes="note")
            self.shares = Chart("14rem")
            columns = ("tenant", ">weight", ">share by weight", ">devices at work", ">share now", ">tasks", ">bytes today", "open tasks")  # fmt: skip
            self.tenants = Table("Tenants", columns, 12, none="none yet")

    def show(self) -> None:
        s = self.board.facts.s
        rows: list[tuple[str, Sequence[object]]] = []
        for z in s.zones:
            if x := z.schedule:
                if x.silent:
                    rows.append((f"{z.zone}/", (z.zone, "", "", Say(f"{x.scheduler} is silent: nobody goes by its order", "warn", "▲"))))  # fmt: skip
                rows += [(f"{z.zone}/{t}", (z.zone, n, t, x.order_why[t])) for n, t in enumerate(x.order, 1)]
        self.order.show(rows)
        waiting = []
        for w in queue_rows(s):
            able: object = "–" if w.eligible is None else f"{w.eligible:,}"
            if w.eligible == 0 and w.seen:
                able = Say("0", "bad", "✗")
            number = f"{w.round}" if w.state == "open" else f"({w.round})"
            since = span(s.at - w.since) if w.since else "–"
            cells = (w.task, w.zone, w.tenant, number, f"{w.slots}/{w.places}", f"{w.deltas}/{w.demand}", able, since, place_words(w.place, s.policy), w.why)  # fmt: skip
            waiting.append((f"{w.zone}/{w.task}", cells))
        self.queue.show(waiting)
        args = ", ".join(f"{k}={v}" for k, v in sorted(s.policy_args.items()))
        by = f", as {s.policy_by} said" if s.policy_by else ""
        self.policy.text = f"Devices are shared by {s.policy or 'nothing yet'}{args and f' ({args})'}{by}."
        self.shares.show(charts.shares(s.tenants))
        self.shares.box.set_visibility(bool(s.tenants))
        tenants = []
        for t in s.tenants:
            tenants.append((t.tenant, (
                t.tenant, f"{t.weight:g}", percent(t.share), _of(t.devices, t.most_devices), percent(t.share_now),
                _of(len(t.tasks), t.most_tasks), _of(t.bytes, t.most_bytes, size), tenant_tasks(t) or "none",
            )))  # fmt: skip
        self.tenants.show(tenants)


def _of(has: int, most: int, word: Callable[[int], str] = "{:,}".format) -> Say:
    """So much of so much; all of it is worth a look."""
    full = bool(most) and has >= most
    return Say(f"{word(has)} of {word(most)}" if most else word(has), "warn" if full else "", "▲" if full else "")


class Events:
    def __init__(self, board: Board, when: Callable[[int], str]) -> None:
        self.board, self.when, self.text = board, when, ""
        self.kinds: Sequence[str] = ()
        with card("Events"):
            with ui.element("div").classes("line"):
                filters = ui.input(placeholder="text", on_change=lambda e: self._filter(text=e.value or ""))
                filters.props('dense outlined clearable aria-label="Filter events by text"').classes("filter")
                kinds = ui.select(list(KINDS), multiple=True, label="kinds", on_change=lambda e: self._filter(kinds=e.value))  # fmt: skip
                kinds.props('dense outlined use-chips aria-label="Filter events by kind"').classes("filter")
            self.table = Table("Events", ("time", "kind", "what happened"), 20, none="nothing yet")

    def _filter(self, text: str | None = None, kinds: Sequence[str] | None = None) -> None:
        self.text = self.text if text is None else text
        self.kinds = self.kinds if kinds is None else tuple(kinds)
        self.show()

    def show(self) -> None:
        found = matching(self.board.events, self.kinds, self.text)
        self.table.show([(str(n), (self.when(e.at), e.kind, event_say(e))) for n, e in enumerate(found)])
