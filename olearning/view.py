"""A namespace as a person sees it, from its topics alone: how things stand, made of what was followed. `drain` says what happened."""

from collections.abc import Iterable, Mapping, Sequence

from device_sim.availability import is_night
from olearning.books import Log, Source, segment, shard_word
from olearning.following import Following
from olearning.happenings import clean
from olearning.snapshot import (
    LocalView,
    Place,
    RoundView,
    ScheduleView,
    ShardView,
    Snapshot,
    SourceView,
    TaskView,
    TenantView,
    ZoneView,
)
from olearning.waiting import phase, rivals, short, shortage, task_waits, zone_waits
from processors.quotas import Allowance
from processors.selector import REPEAT
from processors.standing import open_tasks, standings
from processors.tenancy import holds
from schemas.messages import (
    AggregatorReport,
    Eligible,
    FleetReport,
    Standing,
)
from schemas.sharing import UNSAID
from streams.ledger import GlobalOver, GlobalTask, Zone

QUIET = 2 * REPEAT + 2_000
"""ms without an announcement, while a round is open, after which a zone's leader is taken for gone."""


class View(Following):
    """How a plane stands, read from its topics: a processor to be hosted, by `Kafka` or `Memory`, which sends nothing.

    `zones`: those that are there before they join the globe, if one knows them; the others are learnt from its ledger.
    `silent_ms`: who reports nothing for so long is taken for gone. Raises `BadName` (a `ValueError`) for a namespace or zone that
    is no slug.
    """

    def snapshot(self, now: int) -> Snapshot:
        """How things stand at `now` (ms since 1970). Where the log is silent, how they stood when it last said anything."""
        away = now - self.heard if self.heard is not None and self._silent(self.heard, now) else 0
        now -= away  # nobody is silent, and nothing late, because we hear nothing
        globe, standing, sharing = self.globe, standings(self.globe, self.zones, now), holds(self.globe)
        tasks = [self._task(g, now) for g in globe.tasks.values()]
        tasks += [self._ended(name, x) for name, x in globe.over.items()]
        tasks += [
            TaskView(
                name,
                "",
                "refused",
                0,
                0,
                {},
                why=clean(r.reason),
                since=self.globe_book.moved.get(name, 0),
                phase="refused",
            )
            for name, r in globe.refused.items()
            if not globe.knows(name)
        ]
        zones = tuple(self._zone(name, now) for name in sorted(self.books))
        return Snapshot(
            at=now,
            namespace=self.namespace,
            caught_up=self.caught_up,
            leader=globe.leader.holder,
            leader_token=globe.leader.token,
            tasks=tuple(tasks),
            zones=zones,
            letters=dict(sorted(self.letters.reasons.items(), key=lambda x: -x[1])),
            voids=dict(self.globe_book.voids),
            tenants=self._tenants(standing, zones),
            policy=sharing.policy,
            policy_args=dict(sharing.args),
            policy_by=sharing.by,
            away=away,
        )

    def _tenants(self, standing: Mapping[str, Standing], zones: Sequence[ZoneView]) -> tuple[TenantView, ...]:
        where: dict[str, list[str]] = {}
        """By task, the zones where a round of it is open and waits."""
        for z in zones:
            for r in z.rounds:
                if r.state == "open" and r.queued:
                    where.setdefault(r.task, []).append(z.zone)
        sharing = [s for s in standing.values() if s.tasks or s.devices]
        weights, devices = sum(s.weight for s in sharing), sum(s.devices for s in sharing)
        out = []
        for name, s in standing.items():
            q, mine = s.quota, tuple(open_tasks(self.globe, name))
            waits = {task: tuple(where[task]) for task in mine if task in where}
            part, now = (s.weight / weights, s.devices / devices if devices else None) if s in sharing else (None, None)
            has = (q.tasks, s.devices, q.devices, s.bytes, q.bytes)
            out.append(TenantView(name, s.weight, mine, *has, share=part, share_now=now, waits=waits))
        return tuple(out)

    def _task(self, g: GlobalTask, now: int) -> TaskView:
        task, e = g.spec.task, g.spec.epochs
        zones = {z: self.books[z].zone for z in g.zones if z in self.books}
        here = {z: zones[z].tasks.get(task) for z in zones}
        done = {z: t.merged_rounds if t and t.epoch == g.epoch else 0 for z, t in here.items()}
        moved = [self.books[z].moved.get(task, 0) for z in zones] if g.state == "open" else []
        waits = task_waits(g, self.globe, zones, now)
        return TaskView(
            task=task,
            tenant=g.spec.tenant,
            state=g.state,
            epoch=g.epoch,
            epochs=e.count,
            rounds={z: (n, e.rounds) for z, n in done.items()},
            accuracy={n: x.accuracy for n, x in sorted(self.accuracy.get(task, {}).items())},
            waits=waits,
            since=max(self.globe_book.moved.get(task, 0), *moved, 0) if waits else 0,
            why=clean(g.why),
            phase=phase(g),
            losses={n: x.loss for n, x in sorted(self.accuracy.get(task, {}).items())},
        )

    def _ended(self, task: str, x: GlobalOver) -> TaskView:
        scores = sorted(self.accuracy.get(task, {}).items())
        here = {z: self.books[z].zone.over.get(task) for z in x.zones if z in self.books}
        done = {z: t.merged_rounds if t and t.epoch == x.epoch else 0 for z, t in here.items()}
        return TaskView(
            task=task,
            tenant=x.tenant,
            state="ended",
            epoch=x.epoch,
            epochs=x.epochs,
            rounds={z: (n, x.rounds) for z, n in done.items()},
            accuracy={n: e.accuracy for n, e in scores},
            why=clean(x.why),
            phase="ended",
            losses={n: e.loss for n, e in scores},
        )

    def _zone(self, name: str, now: int) -> ZoneView:
        book = self.books[name]
        zone = book.zone
        fleets, aggregators = self.sources.of(FleetReport, name), self.sources.of(AggregatorReport, name)
        devices: dict[str, int] = {}
        busy = 0
        for fleet in fleets.values():
            if isinstance(fleet.report, FleetReport) and not self._silent(fleet.heard, now):
                devices |= {k: devices.get(k, 0) + n for k, n in fleet.report.states.items()}
                busy += fleet.report.busy
        logs = {task: book.logs.get(task, Log()) for task in zone.tasks}
        unread = {task: logs[task].unread(t) for task, t in zone.tasks.items()}
        shards = []
        for s, h in enumerate(zone.shards):
            words = [log.word(s) for log in logs.values()]
            source = aggregators.get(h.holder)
            gone = self._silent(source.heard if source else self._caught_up, now)
            here = {task: t.next[s] for task, t in zone.tasks.items()}
            word = shard_word(h.holder, gone, words)
            shards.append(ShardView(s, h.holder, h.token, here, sum(u[s] for u in unread.values()), word))
        heard, open_ = self.announced.get(name), [t for t in zone.tasks.values() if t.state == "open"]
        tasks = [g for g in self.globe.tasks.values() if name in g.zones]
        allowance, want = Allowance(self.globe, zone, name, now), short(zone)
        rounds = [self._round(g, name, shards, unread, devices, allowance, want, now) for g in tasks]
        rounds += [self._over(name, t) for t in sorted({*zone.over, *(zone.tasks.keys() & self.globe.over.keys())})]
        return ZoneView(
            zone=name,
            position=zone.position,
            leader=zone.leader.holder,
            leader_token=zone.leader.token,
            leader_silent=bool(zone.leader.token and open_ and heard is not None and now - heard > QUIET),
            rounds=tuple(rounds),
            shards=tuple(shards),
            devices=devices,
            busy=busy,
            fleets=tuple(self._source(n, fleets, now) for n in fleets),
            aggregators=tuple(self._source(n, aggregators, now) for n in aggregators),
            voids=dict(book.voids),
            blocks=sum(logs[task].blocks(t) for task, t in zone.tasks.items())
            + sum(x.offsets for x in zone.over.values()),
            sent_bytes=sum(s.bytes for s in fleets.values()),
            read_bytes=sum(s.bytes for s in aggregators.values()),
            unread=sum(map(sum, unread.values())),
            schedule=self._schedule(name, zone, now),
            seen=self.present[name].devices if name in self.present else None,
            local=self._local(fleets.values(), now),
        )

    def _local(self, fleets: Iterable[Source], now: int) -> LocalView | None:
        """The time of day by the fleet that was heard last."""
        for f in sorted(fleets, key=lambda f: -f.heard):
            if isinstance(f.report, FleetReport) and (at := f.report.local) and not self._silent(f.heard, now):
                hours = (at.hours + (now - f.heard) * 24 / at.day) % 24
                return LocalView(hours, is_night(hours), at.day)
        return None

    def _schedule(self, name: str, zone: Zone, now: int) -> ScheduleView | None:
        if name not in self.advice:
            return None
        (advice, heard), said = self.advice[name], self.orders.get(name)
        order = tuple(t for t in said.order if t in zone.tasks) if said else ()
        why = {t: said.why.get(t, "") for t in order} if said else {}
        silent = self._silent(heard, now)
        return ScheduleView(advice.source, heard, silent, order, why, advice.workers, advice.wanted, advice.why)

    def _round(
        self,
        g: GlobalTask,
        name: str,
        shards: Sequence[ShardView],
        unread: Mapping[str, list[int]],
        devices: Mapping[str, int],
        allowance: Allowance,
        want: Sequence[str],
        now: int,
    ) -> RoundView:
        """A task in a zone; `want` are those there that want more devices."""
        book, task = self.books[name], g.spec.task
        t = book.zone.tasks.get(task)
        left, known = unread.get(task, []), {z: self.books[z].zone for z in g.zones if z in self.books}
        r = t.rounds.get(t.round) if t else None
        o = r.opened if r else None
        presence = self.present.get(name)
        lack = shortage(g, book.zone, presence, allowance)
        sharing, plan = self.globe.sharing, self.plans.get(name)
        shared = rivals(task, want, sharing.sharing.policy) if sharing else ""
        waits = zone_waits(g, book.zone, name, shards, left, devices, known, now, lack, shared)
        able = presence.eligible.get(task) if presence else None
        if able is None and presence and not g.spec.needs.public:
            able = Eligible(presence.devices)
        return RoundView(
            task=task,
            epoch=t.epoch if t else 0,
            round=t.round if t else 0,
            state=t.state if t else "new",
            devices=r.contributors if r else 0,
            demand=o.demand if o else g.spec.rounds.demand,
            registered=len(r.devices) if r else 0,
            lapsed=len(r.lapsed) if r else 0,
            deadline_left=o.deadline - now if o and t and t.state == "open" else None,
            rounds_done=t.merged_rounds if t and t.epoch == g.epoch else 0,
            rounds_goal=g.spec.epochs.rounds,
            mean_loss=book.losses.get(task),
            waits=waits,
            since=max(book.moved.get(task, 0), self.globe_book.moved.get(task, 0)) if waits else 0,
            segment=segment(t),
            total=book.total(task) if t else segment(None),
            unread=sum(left),
            blocks=book.logs.get(task, Log()).blocks(t) if t else 0,
            places=o.places if o else g.spec.rounds.places,
            eligible=able.devices if able else None,
            below=dict(able.below) if able else {},
            curve=book.curves.get(task, ()),
            place=Place(UNSAID.policy, chosen=True) if sharing is None else plan.of(task) if plan else None,
        )

    def _over(self, name: str, task: str) -> RoundView:
        """A task in a zone that is over, there or in the globe."""
        book, x, total = self.books[name], self.globe.over.get(task), self.books[name].total(task)
        if here := book.zone.over.get(task):
            devices, demand, epoch, n, done = here.devices, here.demand, here.epoch, here.round, here.merged_rounds
        else:
            t = book.zone.tasks[task]
            r = t.rounds[t.round]
            devices, demand, epoch, n, done = (
                r.contributors,
                r.opened.demand if r.opened else 0,
                t.epoch,
                t.round,
                t.merged_rounds,
            )
        return RoundView(
            task=task,
            epoch=epoch,
            round=n,
            state="over",
            devices=devices,
            demand=demand,
            registered=0,
            lapsed=0,
            deadline_left=None,
            rounds_done=done if x and epoch == x.epoch else 0,
            rounds_goal=x.rounds if x else 0,
            mean_loss=book.losses.get(task),
            waits="",
            since=0,
            segment=segment(None),
            total=total,
            unread=0,
            blocks=total.offsets,
            curve=book.curves.get(task, ()),
        )

    def _source(self, name: str, among: Mapping, now: int) -> SourceView:
        s = among[name]
        return SourceView(name, s.heard, self._silent(s.heard, now), s.blocks, s.bytes)
