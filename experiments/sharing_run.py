"""Jobs that share phones, by any policy, second by second: only seconds in which something happens are looked at.

A phone is idle when it is free and has no work. Idle phones look at the plan of the policy, which is `learning.sharing`'s own, made anew
when a round opens, has its devices or closes, at most once a second. A phone takes the first of its tasks that has room and whose needs, private
ones too, it meets, in a round of which it has had no part yet. Of phones that look in the same second the order is drawn.

A round wants 1.3 times its demand, ends with as many results as it demands, or by one of its time-outs. Two ways (`Way.keeps`):

- ours: a round that has not got its devices in time goes on with those it has; at the second time-out it counts if `ENOUGH` of the demand
  came; phones stop when it ends; a phone that goes away gives back its place `LEASE` later.
- as Propius: at any time-out all of the round is thrown away and it begins anew; phones go on to their end; no place comes back.
"""

import heapq
from bisect import bisect_right
from typing import Any

import numpy as np

from experiments.sharing_jobs import Open, Way, Working
from experiments.sharing_world import Phones, Want, quotas
from learning.sharing.groups import fitting
from learning.sharing.policy import Market, plan
from schemas.sharing import Rule

ENOUGH = 0.8
"""The share of its demand that makes a round count when time is over."""
LEASE = 30
"""Seconds after a phone went away until its place is given anew."""
POLL = 3
"""Seconds between two tries of a phone that picks tasks at random, as there."""
WINDOW = 1_000
"""A policy sees the devices of so many of the last check-ins."""
FAR = 1 << 60
NOT_FILLED, NOT_SERVED, RESULTS, GIVES_BACK, ARRIVES = range(5)
"""What happens in a second, in this order."""


class Sharing:
    """One run. `log`, where asked for: each binding as (phone, job, from, until)."""

    def __init__(
        self, phones: Phones, wants: list[Want], way: Way, seed: int, faster: float, until: int, log: bool = False
    ):
        self.phones, self.way, self.seed, self.until = phones, way, seed, until
        self.rng = np.random.default_rng((seed, 3))
        self.serve_s = np.maximum(1, np.rint(phones.compute_s / faster + phones.network_s)).astype(np.int64)
        self.jobs = [Working(w, way) for w in wants]
        self.ready = np.full(phones.count, FAR)
        self.end = np.zeros(phones.count, np.int64)
        self.part = np.zeros((phones.count, len(wants)), np.int64)
        """The last round of each job that a phone took part in."""
        self.window = 0
        self.active: list[Working] = []
        self.events: list[tuple[int, int, int, int]] = []  # (when, what, job, round)
        self.buckets: dict[int, list[int]] = {}
        self.seconds: list[int] = []
        self.seen = np.zeros(0, np.int64)
        self.fresh: list[np.ndarray] = []
        self.changed = True
        self.plan: Any = None
        self.busy = np.zeros(phones.count, np.int64)
        self.counts = dict.fromkeys(("bindings", "counted", "gone", "surplus", "discarded", "handshakes", "plans"), 0)
        self.useful = 0
        self.log: list[tuple[int, int, int, int]] | None = [] if log else None
        if way.policy == "static":
            self.bound = quotas(wants, phones.kind, self.rng)
        for job in self.jobs:
            self._at(job.want.arrives, ARRIVES, job, 0)

    # ------------------------------------------------------------------ the clock

    def run(self) -> "Sharing":
        now = 0
        while any(job.ended < 0 for job in self.jobs):
            now = self._next(now)
            if now >= self.until:
                break
            self._wake(now)
            while self.events and self.events[0][0] <= now:
                _, what, number, round_ = heapq.heappop(self.events)
                self._happens(now, what, self.jobs[number], round_)
            if any(job.room > 0 for job in self.active):
                self._bind(now)
            self.now = now
        for job in self.active:
            self._settle(job, self.until, kept=False)
        return self

    def _next(self, now: int) -> int:
        """The next second in which something may happen."""
        when = [self.events[0][0]] if self.events else [self.until]
        if any(job.room > 0 for job in self.active):
            if self.way.policy == "random-binding":
                when.append(now - now % POLL + POLL)
            else:
                while self.seconds and self.seconds[0] <= now:
                    self.buckets.pop(heapq.heappop(self.seconds), None)
                when += self.seconds[:1]
                if self.window < len(self.phones.starts):
                    when.append(int(self.phones.starts[self.window]))
                if self.changed:
                    when.append(now + 1)
        return max(now + 1, min(when))

    def _wake(self, now: int) -> None:
        """Phones that came to be idle since the last look."""
        self.fresh = []
        to = int(np.searchsorted(self.phones.starts, now, side="right"))
        if to > self.window:
            who = self.phones.who[self.window : to]
            self.ready[who], self.end[who] = self.phones.starts[self.window : to], self.phones.ends[self.window : to]
            self.fresh.append(who)
            self.window = to
        while self.seconds and self.seconds[0] <= now:
            self.fresh.append(np.array(self.buckets.pop(heapq.heappop(self.seconds)), np.int64))
        if self.fresh:
            self.seen = np.concatenate([self.seen, *self.fresh])[-WINDOW:]

    def _at(self, when: float, what: int, job: Working, round_: int) -> None:
        heapq.heappush(self.events, (int(when), what, job.want.number, round_))

    def _frees(self, who: np.ndarray, when: np.ndarray) -> None:
        """Phones are idle again then, if they are still free."""
        self.ready[who] = when
        for i, second in zip(who.tolist(), when.tolist(), strict=True):
            if second not in self.buckets:
                self.buckets[second] = []
                heapq.heappush(self.seconds, second)
            self.buckets[second].append(i)

    # ------------------------------------------------------------------ rounds

    def _happens(self, now: int, what: int, job: Working, round_: int) -> None:
        if what == ARRIVES:
            self.active.append(job)
            self._open(job, now)
            return
        if job.ended >= 0 or job.open.number != round_:
            return
        if what == GIVES_BACK:
            if job.keeps and not job.short:
                job.open.got -= 1
                self.changed = True
        elif what == RESULTS and self._results(job, now) >= job.want.demand:
            self._close(job, now, kept=True)
        elif what == NOT_FILLED and job.open.filled < 0:
            job.timed_out += 1
            if not job.keeps or job.open.got < ENOUGH * job.want.demand:
                self._close(job, now, kept=False)
            else:
                job.short = True
                self._filled(job, now)
        elif what == NOT_SERVED:
            job.timed_out += 1
            self._close(job, now, kept=job.keeps and self._results(job, now) >= ENOUGH * job.want.demand)

    def _open(self, job: Working, now: int) -> None:
        job.tries += 1
        job.open, job.short = Open(job.tries, now), False
        self._at(now + job.want.fill_within_s, NOT_FILLED, job, job.tries)
        self.changed = True

    def _filled(self, job: Working, now: int) -> None:
        job.open.filled = now
        job.service += job.open.got
        self._at(now + job.want.serve_within_s, NOT_SERVED, job, job.open.number)
        self.changed = True

    def _results(self, job: Working, now: int) -> int:
        return bisect_right(job.open.results, now)

    def _close(self, job: Working, now: int, kept: bool) -> None:
        o = job.open
        if kept:
            job.done += 1
            job.got_share += self._results(job, now) / job.want.demand
            filled = o.filled if o.filled >= 0 else now  # all it demands came before it had all over-selected phones
            job.fills.append(filled - o.since)
            job.serves.append(max(1, now - filled))
        self._settle(job, now, kept)
        self.changed = True
        if job.done == job.want.rounds:
            job.ended = now
            self.active.remove(job)
        else:
            self._open(job, now)

    def _settle(self, job: Working, now: int, kept: bool) -> None:
        """What became of each phone of a round that is over."""
        o = job.open
        if not o.who:
            return
        who, began, until, gone = (np.concatenate(a) for a in (o.who, o.began, o.until, o.gone))
        over = until <= now
        came = over & ~gone
        self.counts["counted" if kept else "discarded"] += int(came.sum())
        self.counts["gone"] += int((over & gone).sum())
        self.counts["surplus"] += int((~over).sum())
        if kept:
            self.useful += int((until[came] - began[came]).sum())
        ends = until
        if job.keeps:  # the round is full: they stop
            late = who[~over]
            np.subtract.at(self.busy, late, until[~over] - now)
            self._frees(late, np.full(len(late), now + 1))
            ends = np.minimum(until, now + 1)
        if self.log is not None:
            self.log += zip(who.tolist(), [job.want.number] * len(who), began.tolist(), ends.tolist(), strict=True)

    # ------------------------------------------------------------------ who takes what

    def _bind(self, now: int) -> None:
        policy = self.way.policy
        fresh = not self.changed and policy != "random-binding"
        if not fresh:
            who = np.flatnonzero((self.ready <= now) & (self.end > now))
        elif not self.fresh:
            return
        else:
            who = np.array(sorted(set(np.concatenate(self.fresh).tolist())), np.int64)
            who = who[(self.ready[who] <= now) & (self.end[who] > now)]
        wanting = [job for job in self.active if job.room > 0]
        if policy not in ("static", "random-binding") and self.changed:
            self._plan(now, wanting)
        self.changed = False
        if policy == "random-binding":
            self._at_random(now, who)
            return
        bits = 0
        for job in wanting:
            bits |= 1 << job.bit
        who = who[self.phones.kind[who] & bits > 0]
        if not len(who):
            return
        who = self.rng.permutation(who)
        if policy == "static":
            key = self.bound[who]
            lists = {job.want.number: [job] for job in wanting}
        elif self.plan.chosen:
            key, lists = self._any(who, wanting)
        else:
            key, lists = self._turns(who, wanting)
        self._take(now, who.tolist(), key.tolist(), lists)

    def _plan(self, now: int, wanting: list[Working]) -> None:
        granted: dict[str, int] = {}
        for job in self.active:
            granted[job.tenant] = granted.get(job.tenant, 0) + job.open.got
        devices = self.phones.abilities[np.unique(self.seen)]
        market = Market([job.job(now) for job in wanting], devices, {}, granted, self.seed)
        self.plan = plan(self.way.policy, dict(self.way.args), market, "all", now)
        self.counts["plans"] += 1

    def _turns(self, who: np.ndarray, wanting: list[Working]) -> tuple[np.ndarray, dict[int, list[Working]]]:
        """By phone a key, and by key what such phones take, the first last."""
        rules: tuple[Rule, ...] = self.plan.rules
        first, kind = fitting(rules, self.phones.abilities[who]), self.phones.kind[who]
        most = max(len(rule.turns) for rule in rules) if rules else 1
        turn = np.zeros(len(who), np.int64)
        if most > 1:
            edges = np.ones((len(rules) + 1, most))
            for n, rule in enumerate(rules):
                edges[n, : len(rule.turns)] = np.cumsum([t.share for t in rule.turns])
            draw = self.rng.random(len(who))
            turn = np.minimum(
                (draw[:, None] >= edges[first]).sum(axis=1), [len(rules[n].turns) - 1 if n >= 0 else 0 for n in first]
            )
        key = ((first + 1) * most + turn) * 8 + kind
        by_task = {job.task: job for job in wanting}
        lists = {}
        for k in set(key.tolist()):
            (n, t), bits = divmod(k // 8, most), k % 8
            tasks = rules[n - 1].turns[t].tasks if n else ()
            lists[k] = [by_task[x] for x in reversed(tasks) if x in by_task and bits >> by_task[x].bit & 1]
        return key, lists

    def _any(self, who: np.ndarray, wanting: list[Working]) -> tuple[np.ndarray, dict[int, list[Working]]]:
        """Each phone has an order of its own."""
        kinds = self.phones.kind[who].tolist()
        lists = {}
        for n, bits in enumerate(kinds):
            can = [job for job in wanting if bits >> job.bit & 1]
            self.rng.shuffle(can)
            lists[n] = can
        return np.arange(len(who)), lists

    def _take(self, now: int, who: list[int], keys: list[int], lists: dict[int, list[Working]]) -> None:
        room = {job.want.number: job.room for job in self.active}
        took: dict[int, list[int]] = {}
        left = sum(n for n in room.values() if n > 0)
        live = {k for k, jobs in lists.items() if jobs}
        for i, k in zip(who, keys, strict=True):
            if not left or not live:
                break
            if k not in live:
                continue
            jobs = lists[k]
            while jobs and room[jobs[-1].want.number] <= 0:
                jobs.pop()
            if not jobs:
                live.discard(k)
                continue
            for job in reversed(jobs):
                number = job.want.number
                if room[number] > 0 and self.part[i, number] != job.open.number:
                    room[number] -= 1
                    left -= 1
                    took.setdefault(number, []).append(i)
                    break
        for number, some in took.items():
            self.counts["handshakes"] += len(some)
            self._bound(now, self.jobs[number], np.array(some))

    def _at_random(self, now: int, who: np.ndarray) -> None:
        """Each picks any of the jobs there are; one that it cannot serve, or that has no room, costs a handshake."""
        self.counts["handshakes"] += len(who)
        who = self.rng.permutation(who)
        pick = self.rng.integers(len(self.active), size=len(who))
        for n, job in enumerate(list(self.active)):
            if job.room > 0:
                can = (self.phones.kind[who] >> job.bit & 1 > 0) & (self.part[who, job.want.number] != job.open.number)
                some = who[(pick == n) & can][: job.room]
                if len(some):
                    self._bound(now, job, some)

    def _bound(self, now: int, job: Working, who: np.ndarray) -> None:
        o, done = job.open, now + self.serve_s[who]
        gone = done > self.end[who]
        until = np.minimum(done, self.end[who])
        self.part[who, job.want.number] = o.number
        o.who.append(who)
        o.began.append(np.full(len(who), now))
        o.until.append(until)
        o.gone.append(gone)
        o.got += len(who)
        self.counts["bindings"] += len(who)
        self.busy[who] += until - now
        self._frees(who, until)
        if job.keeps:
            for second in until[gone].tolist():
                self._at(second + LEASE, GIVES_BACK, job, o.number)
        if job.room <= 0:
            if o.filled < 0:
                self._filled(job, now)
            self.changed = True
        o.results = sorted(o.results + until[~gone].tolist())
        if len(o.results) >= job.want.demand:
            self._at(max(now + 1, o.results[job.want.demand - 1]), RESULTS, job, o.number)

    # ------------------------------------------------------------------ what came out

    def result(self) -> dict[str, Any]:
        last = max((job.ended if job.ended >= 0 else self.until) for job in self.jobs)
        took = [(job.ended if job.ended >= 0 else self.until) - job.want.arrives for job in self.jobs]
        worked = self.busy[self.busy > 0]
        p = self.phones
        free = int(np.clip(np.minimum(p.ends, last) - p.starts, 0, None).sum())
        rounds = sum(job.done for job in self.jobs)
        return self.counts | {
            "took": took,
            "fill_s": float(np.mean([np.mean(job.fills) for job in self.jobs if job.fills] or [np.float64(0)])),
            "serve_s": float(np.mean([np.mean(job.serves) for job in self.jobs if job.serves] or [np.float64(0)])),
            "unfinished": sum(job.ended < 0 for job in self.jobs),
            "hours": last / 3600,
            "rounds": rounds,
            "tries": sum(job.tries for job in self.jobs),
            "timed_out": sum(job.timed_out for job in self.jobs),
            "share": sum(job.got_share for job in self.jobs) / max(1, rounds),
            "utilisation": float(worked.mean() / last) if len(worked) else 0.0,
            "worked": len(worked),
            "useful": self.useful / free,
            "busy": int(self.busy.sum()) / free,
        }
