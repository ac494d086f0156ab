"""Guards that can be taken out, to see that the schedules go red without them.

Each control is a context in which one rule of docs/protocol.md does not hold. Those that reach into a processor name what they
patch, so a change there that makes a control mean nothing fails it at once instead of letting it pass.

Not among them: the leaders' token, and acting only after the own claim is read. Without either, 1,500 schedules find nothing
wrong: the chains alone keep the books right. Tokens keep those who lost their seat from spoiling work. Nor the segment rule
alone, which is needed once in some hundred schedules. The explorations in `tests/streams` take each of these out.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from processors import aggregator
from processors.accumulator import Accumulator
from processors.aggregator import Aggregator
from processors.selector import Selector
from processors.work import Work
from processors.zone_leader import ZoneLeader
from schemas import sets
from schemas.facts import Update
from schemas.messages import Admission
from streams import ledger
from streams.ledger import chains, rounds
from streams.models import Writing
from streams.processor import send

CONTROLS: dict[str, Callable[[], AbstractContextManager]] = {}


def without(name: str) -> AbstractContextManager:
    """A context without that guard; "": with all of them."""
    return CONTROLS[name]() if name else nothing_missing()


@contextmanager
def nothing_missing() -> Iterator[None]:
    yield


def control(make: Callable[[], Any]) -> Callable[[], Any]:
    CONTROLS[make.__name__.replace("_", "-")] = make
    return make


# ------------------------------------------------------------------ the fold


def lax(*reasons: str) -> AbstractContextManager:
    """The fold without the guards that void a fact for these reasons."""
    strict = chains.require
    return patch.object(
        chains, "require", lambda holds, reason: None if any(r in reason for r in reasons) else strict(holds, reason)
    )


@control
def tile_rule() -> Any:
    return lax("is committed up to")


@control
def tile_token_and_segment_rule() -> Any:
    return lax("is committed up to", "is not that of shard", "is in round")


@contextmanager
def _nobody_put_out() -> Iterator[None]:
    taken = lax("is committed up to", "is not that of shard", "is in round", "is done or given up before")
    with taken, patch.object(Work, "drop", lambda self, t, held: None):
        yield


@control
def fencing() -> Any:
    """Who lost its shards commits what it had read of them all the same, and the fold takes it."""
    return _nobody_put_out()


@control
def admissions_chain() -> Any:
    return lax("is not the last Admitted", "are dealt with to elsewhere", "the next new slot of", "has two slots")


@control
def taken_tiles() -> Any:
    return lax("is taken up to", "the epoch ends at")


@control
def order_of_round_steps() -> Any:
    def any_state(z: Any, f: Any, state: str) -> Any:
        chains.lead(z, f.token)
        t = z.tasks.get(f.task)
        if t is None or t.round != f.round:
            raise ledger.Void("another round")
        return t, t.rounds[f.round]

    return patch.object(rounds, "_current", any_state)


# ------------------------------------------------------------------ aggregators


@control
def bitmaps() -> Any:
    """Who takes a shard over does not ask what was counted before."""

    def ignorant(self: Any, task: str, work: Any, t: Any) -> Any:
        work.bitmaps.loaded |= {c.offset for r in t.rounds.values() for c in r.commits}
        return ()

    return patch.object(Aggregator, "_load", ignorant)


@control
def own_bitmap() -> Any:
    return patch.object(Work, "known", lambda self, round, slot, block: False)


@control
def judging_after_reading_on() -> Any:
    """What the fold does not know is invalid at once, though the ledger may say more by now."""
    judge = aggregator.judge
    return patch.object(aggregator, "judge", lambda *a: judge(*a[:-1], True))


@control
def storing_before_committing() -> Any:
    """The commit is offered while its sums are still under way."""
    seal = Accumulator.seal

    def hasty(self: Any, *a: Any) -> None:
        seal(self, *a)
        self.unstored = 0

    return patch.object(Accumulator, "seal", hasty)


@control
def what_a_slot_owes() -> Any:
    """A device may send any block, whatever its slot was given for."""
    return patch.object(sets, "has", lambda blocks, block: True)


@control
def a_slot_is_done_with_what_it_owes() -> Any:
    return patch.object(ledger.Round, "owed", lambda self, slot: len(self.opened.sizes))


# ------------------------------------------------------------------ coordinators


@control
def zones_merged_block_by_block() -> Any:
    """A zone weighs its samples, also in what none of its devices trained."""
    return patch.object(Update, "weigh", lambda self, n: (self.samples,) * n)


@contextmanager
def _hasty_finalise() -> Iterator[None]:
    react = ZoneLeader.react

    def hasty(self: Any, now: int) -> Any:
        yield from react(self, now)
        for task, t in self.desk.zone.tasks.items():
            if t.state == "closed" and min(t.at) <= t.round:
                yield from self._finalise(task, t, now)

    with patch.object(ZoneLeader, "react", hasty), lax("not all shards are done"):
        yield


@control
def finalising_when_all_shards_are_done() -> Any:
    return _hasty_finalise()


@control
def writing_before_naming() -> Any:
    """A model's manifest is offered when the first of its blocks is acknowledged."""
    stored = Writing.stored

    def hasty(self: Any, key: str, place: tuple[int, int]) -> bool:
        stored(self, key, place)
        self._missing.clear()
        return True

    return patch.object(Writing, "stored", hasty)


@control
def answering_what_the_ledger_says() -> Any:
    """Devices are told of their slots when these are offered."""
    react = Selector.react

    def hasty(self: Any, now: int) -> Any:
        for effect in react(self, now):
            yield effect
            for x in self.offered[1].slots:
                said = Admission(x.device, x.task, x.round, x.slot, now + 1_000, self.desk.ref(self.desk.zone.admitted))
                yield send(self.admissions, said, x.device)

    return patch.object(Selector, "react", hasty)
