"""The fold: a state and a record give the next state. `TRANSITIONS` is the table of the protocol."""

from collections.abc import Callable, Mapping
from typing import Any, Generic

from msgspec.structs import replace

from schemas import facts
from schemas.facts import (
    Abandoned,
    Admitted,
    Checkpoint,
    Claimed,
    Closed,
    Committed,
    EpochClosed,
    EpochOpened,
    Finalised,
    Founded,
    Lost,
    Merged,
    Opened,
    Retired,
    Rules,
    Scored,
    SharingSet,
    Taken,
    TaskAdmitted,
    TaskEnded,
    TaskRefused,
    TaskUpdated,
    TenantSet,
    WishRefused,
    ZoneJoined,
)
from schemas.messages import Ref
from schemas.wire import Malformed, Message, checksum, decode, encode
from streams.ledger import chains, epochs, losses, rounds
from streams.ledger.chains import MARKS, Diverged, Void
from streams.ledger.states import Globe, S, Zone
from streams.processor import Record

Transition = Callable[[Any, int, int, Any], Any]

TRANSITIONS: Mapping[type, Mapping[type, Transition]] = {
    Zone: {
        Founded: chains.founded,
        Rules: chains.rules,
        Checkpoint: chains.checkpoint,
        Claimed: chains.claimed,
        Opened: rounds.opened,
        Admitted: rounds.admitted,
        Committed: rounds.committed,
        Closed: rounds.closed,
        Finalised: rounds.finalised,
        Lost: losses.lost,
        Abandoned: losses.abandoned,
        Retired: rounds.retired,
    },
    Globe: {
        Founded: chains.founded,
        Rules: chains.rules,
        Checkpoint: chains.checkpoint,
        Claimed: chains.claimed,
        ZoneJoined: epochs.joined,
        TaskAdmitted: epochs.task_admitted,
        TaskUpdated: epochs.task_updated,
        TaskRefused: epochs.task_refused,
        TenantSet: epochs.tenant_set,
        SharingSet: epochs.sharing_set,
        WishRefused: epochs.wish_refused,
        EpochOpened: epochs.epoch_opened,
        Taken: epochs.taken,
        EpochClosed: epochs.epoch_closed,
        Merged: epochs.merged,
        Scored: epochs.scored,
        TaskEnded: epochs.task_ended,
    },
}

_FACTS: Mapping[type, tuple[type, ...]] = {Zone: facts.ZONE_FACTS, Globe: facts.GLOBAL_FACTS}


def fold(state: S, offset: int, time: int, fact: Message | None) -> tuple[S, str]:
    """The state after the record at `offset`, written at `time` (ms): (state, why it is void or "").

    `fact` None stands for what could not be read. Raises `ValueError` if `offset` is not the next one.
    """
    if offset != state.position:
        raise ValueError(f"ledger {state.ledger}: offset {offset} comes after {state.position - 1}")
    void, new = "", state
    try:
        chains.require(bool(state.ledger) or isinstance(fact, Founded), "the ledger is not founded")
        transition = TRANSITIONS[type(state)].get(type(fact))
        if transition is None:
            raise Void("not a fact of this ledger")
        new = transition(state, offset, time, fact)
    except Void as e:
        void, new = str(e), state
    return replace(new, position=offset + 1), void


class Ledger(Generic[S]):
    """A reader's copy of a ledger: feed it the records in order, from `state.position` on."""

    def __init__(self, state: S):
        self.state: S = state
        self.marks: dict[int, S] = {}
        """The last states at multiples of `every`: what a checkpoint is made of, and compared with."""

    def feed(self, record: Record) -> tuple[Message | None, str]:
        """The fact and why it is void ("" if accepted); None for what cannot be read, which is void."""
        try:
            fact, unread = decode(record.value, _FACTS[type(self.state)], record.headers), ""
        except Malformed as e:
            fact, unread = None, str(e)
        self.state, void = fold(self.state, record.offset, record.timestamp, fact)
        if isinstance(fact, Checkpoint):  # a void one, too: whoever errs may err about who leads
            self._compare(fact)
        if self.state.every and self.state.position % self.state.every == 0:
            self.marks[self.state.position] = self.state
            while len(self.marks) > MARKS:
                del self.marks[min(self.marks)]
        return fact, unread or void

    def _compare(self, f: Checkpoint) -> None:
        mine = self.marks.get(f.offset)
        if mine is not None and checksum(snapshot(mine)) != f.hash:  # None: read from a later checkpoint on
            raise Diverged(
                f"the fold of ledger {self.state.ledger} below {f.offset} is not the one its checkpoint names: this "
                "version folds otherwise than the leader's; run one version everywhere"
            )

    def ref(self, offset: int) -> Ref:
        return Ref(ledger=self.state.ledger, offset=offset)


def leads(state: Zone | Globe, holder: str, life: str) -> int:
    """The token by which this life of `holder` leads, or 0."""
    leader = state.leader
    return leader.token if (leader.holder, leader.life) == (holder, life) else 0


def shards_of(zone: Zone, holder: str, life: str) -> dict[int, int]:
    """The shards that this life of `holder` holds, with their tokens."""
    return {i: h.token for i, h in enumerate(zone.shards) if (h.holder, h.life) == (holder, life)}


def snapshot(state: Zone | Globe) -> bytes:
    """The state as canonical bytes: equal states, equal bytes."""
    return encode(state)


def restore(data: bytes, kind: type[S]) -> S:
    """The state that `snapshot` made these bytes of. Raises `Malformed`."""
    return decode(data, (kind,))
