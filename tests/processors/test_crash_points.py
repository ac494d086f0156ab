"""A crash before and after every effect: each thing that an aggregator or a coordinator does in a run is numbered, and at each
its host is killed once, before it is carried out, right after with all appends under way landed, and with them lost.

Which effects there are is asked of a run without faults, so whatever a processor learns to do is covered by itself. After each
the model must have the bits of plain numpy, and the books must be right (`tests.chaos.audit`).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from msgspec.structs import replace

from device_sim.fleet import Manner
from schemas.sharing import SHARING, Needs, Quota, Sharing, Tenant
from schemas.task import Epochs, Rounds, TaskSpec
from schemas.topics import GLOBAL, read, topic
from streams.processor import Send, send
from tests.chaos import controls
from tests.chaos.audit import Audit
from tests.chaos.oracle import trained
from tests.chaos.schedules import Taped
from tests.plane import NS, Plane, part_of

pytestmark = pytest.mark.proof

ROLES = ("agg-east-0", "agg-east-1", "zone-east", "global")
MODES = ("before", "after, landed", "after, lost")
DEVICES, EPOCHS, ROUNDS = 3, 2, 1
VARIANTS = {
    "plain": {"every": 1_000, "spread": 0, "atomic": False},
    "atomic parts, with checkpoints": {"every": 6, "spread": 300, "atomic": True, "partial": True},
    "two tenants under a plan": {"every": 8, "spread": 0, "atomic": False, "policy": "max-min"},
}
"""Under a plan two tenants have a task each that needs something of devices, and quotas of a device less than their rounds want: it is
admitted when another's slot is free again, so a slot that leaked would hold up the round."""
CASES = [(v, r) for v in VARIANTS for r in ROLES if "tenants" not in v or not r.startswith("agg")]
"""To an aggregator a plan is nothing."""


@cache
def right(task: str, partial: bool) -> bytes:
    def who(zone: str, n: int, block: int) -> list[str]:
        all = [f"{zone}-{k}" for k in range(DEVICES)]
        return [d for d in all if not partial or block in (part_of(d, task, n) or (block,))]

    return trained(task, 1, ("east",), EPOCHS, ROUNDS, who, partial).tobytes()


ABLE = {"ram": 4.0}

Point = tuple[str, int, str]
"""Kind of effect, the how manieth of its kind, mode."""


def kind_of(effect: Any) -> str:
    """Effects of one kind are counted together: what is done, to which sort of topic, with which message."""
    name = type(effect).__name__
    what = effect.topic.split(".")[2] if hasattr(effect, "topic") else ""
    message = type(read(effect.topic, effect.value, effect.headers)).__name__ if isinstance(effect, Send) else ""
    return " ".join(filter(None, (name, what, message)))


class Doomed:
    """A processor that is watched, and killed at one point of its work."""

    def __init__(self, processor: Any, watch: Callable[[Any], Iterator[Any]]):
        self._processor, self._watch = processor, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def start(self, now: int) -> Iterator[Any]:
        return self._watch(self._processor.start(now))

    def handle(self, event: Any, now: int) -> Iterator[Any]:
        return self._watch(self._processor.handle(event, now))


class Run:
    """A small plane in which `role` dies at `point`, or nobody does."""

    def __init__(self, variant: str, role: str, point: Point | None = None):
        v = VARIANTS[variant]
        self.role, self.point, self.seen, self.number = role, point, Counter[str](), 0
        self.died = False
        self.memory = Taped(seed=1, latency=(1, 10))
        apart = v["spread"]
        self.memory.network = lambda host, s: [
            self.memory.delay() + (self.memory.random.randint(0, apart) if ".deltas." in s.topic else 0)
        ]
        manner = Manner(training=(50, 200), reaction=50, report=10_000, resend=0.3)
        policy, self.partial = str(v.get("policy", "")), bool(v.get("partial"))
        self.plane = Dying(
            self.memory,
            zones=("east",),
            partitions=2,
            devices=DEVICES,
            every=v["every"],
            manner=manner,
            abilities=ABLE if policy else {},
            run=self,
        )
        self.tasks = ("toy", "toy-2") if policy else ("toy",)
        rounds = Rounds(
            demand=DEVICES,
            over_commit=1.0,
            minimum=DEVICES,
            deadline_s=100,
            lease_s=50,
            atomic=bool(v["atomic"]),
            partial=self.partial,
        )
        needs = Needs(public=ABLE, private={"samples": 1}) if policy else Needs()
        for task in self.tasks:
            made = TaskSpec(task, "arithmetic", "none", rounds=rounds, epochs=Epochs(EPOCHS, ROUNDS), needs=needs)
            self.plane.submit(replace(made, tenant=f"of-{task}"))
        if policy:
            wishes = [(t, Tenant(t, quota=Quota(devices=DEVICES - 1))) for t in ("of-toy", "of-toy-2")]
            for key, wish in (*wishes, (SHARING, Sharing(policy))):
                self.memory.append(send(topic(NS, GLOBAL, "tenants"), wish, key))

    def watched(self, effects: Iterator[Any]) -> Iterator[Any]:
        for effect in effects:
            kind = kind_of(effect)
            self.seen[kind] += 1
            here = self.point and self.point[:2] == (kind, self.seen[kind])
            if not here:
                yield effect
                continue
            mode = self.point[2]  # type: ignore[index]
            if mode != "before":
                yield effect
            self.memory.loss = float(mode == "after, lost")
            host = self.memory.hosts[self.number]
            host.crash()
            self.died = True
            # Back before its session is over, or after.
            self.memory._at(30 if self.seen[kind] % 2 else 1_500, host.restart)
            return

    def finish(self) -> "Run":
        ended = self.memory.run(lambda: all(map(self.plane.ended, self.tasks)) or self.gave_up(), 100_000)
        assert not self.gave_up(), [h.stopped for h in self.memory.hosts if h.stopped]
        assert ended, "it does not end"
        self.memory.run(limit=2_000)
        assert not self.gave_up(), [h.stopped for h in self.memory.hosts if h.stopped]
        Audit(self.plane).run()
        for task in self.tasks:
            assert self.plane.model(task).tobytes() == right(task, self.partial), f"another model of {task}"
        return self

    def gave_up(self) -> bool:
        return bool(self.memory.gave_up)


@dataclass
class Dying(Plane):
    run: Any = None

    def host(self, name: str, make: Any) -> None:
        if name == self.run.role:
            self.run.number = len(self.memory.hosts)
            super().host(name, lambda life: Doomed(make(life), self.run.watched))
        else:
            super().host(name, make)


@cache
def points(variant: str, role: str) -> tuple[Point, ...]:
    """Every effect of a run in which nobody dies. Only what is sent can be lost."""
    seen = Run(variant, role).finish().seen
    numbered = [(kind, i) for kind, n in sorted(seen.items()) for i in range(1, n + 1)]
    return tuple((k, i, m) for k, i in numbered for m in MODES if k.startswith("Send") or m != "after, lost")


def crash(variant: str, role: str, point: Point) -> str:
    """What is wrong after a crash there, or ""."""
    try:
        run = Run(variant, role, point).finish()
        assert run.died, "nobody died: the run is not the same up to there"
    except Exception as e:
        return f"crash({variant!r}, {role!r}, {point!r}): {type(e).__name__}: {e}"
    return ""


@pytest.mark.timeout(3600)  # it takes what others leave (Makefile)
@pytest.mark.parametrize(("variant", "role"), CASES)
def test_a_crash_at_any_effect_changes_no_bit(variant, role):
    wrong = [how for p in points(variant, role) if (how := crash(variant, role, p))]
    assert not wrong, f"{len(wrong)} of {len(points(variant, role))}\n" + "\n".join(wrong[:10])


STEPS = {
    "agg-east-1": {"Send ledger Claimed", "Send partials Counted", "Send partials SumBlock", "Send ledger Committed",
                   "Send receipts Receipt"},
    "zone-east": {"Send ledger Opened", "Send ledger Admitted", "Send admissions Admission", "Ends deltas", "Send ledger Closed",
                  "Fetch partials", "Fetch models", "Send models ModelBlock", "Send ledger Finalised", "Send ledger Retired",
                  "Send announcements Announcement", "Send ledger Claimed"},
    "global": {"CreateTopics", "Send ledger TaskAdmitted", "Send ledger EpochOpened", "Send ledger EpochClosed", "Send ledger Taken",
               "Fetch models", "Send models ModelBlock", "Send ledger Merged", "Send ledger TaskEnded"},
}  # fmt: skip


@pytest.mark.parametrize("role", STEPS)
def test_every_step_is_among_the_points(role):
    assert {kind for kind, _, _ in points("plain", role)} >= STEPS[role]


@pytest.mark.parametrize(
    ("guard", "role"),
    [
        ("bitmaps", "agg-east-1"),
        ("storing-before-committing", "agg-east-1"),
        ("writing-before-naming", "zone-east"),
        ("writing-before-naming", "global"),
    ],
)
def test_control_some_crash_goes_red_without(guard, role):
    tried = [(v, p) for v in VARIANTS for p in points(v, role)]
    with controls.without(guard):
        assert any(crash(v, role, p) for v, p in tried), f"no crash of {role} finds that there is no {guard}"
