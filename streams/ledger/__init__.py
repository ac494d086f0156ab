"""The fold: what a ledger says, as a pure function of its records. Everything that changes a ledger's state is in this folder.

An append is an offer, the fold is the verdict. A fact names what it follows and is accepted iff that is still the last of its
chain when it lands; else it is void, changes nothing, and is so for every reader alike. Nobody acts on an acknowledgement.
`TRANSITIONS` (`folding.py`) is the table; each entry returns the next state or raises `Void` with the reason.

States are never changed in place: a reader may keep any of them. `schemas.wire.encode(state)` is canonical.
"""

from streams.ledger.chains import MARKS, Diverged, UnknownRules, Void, known_rules
from streams.ledger.epochs import silent
from streams.ledger.folding import TRANSITIONS, Ledger, fold, leads, restore, shards_of, snapshot
from streams.ledger.places import MOST_BITS, at_work, cost, has_devices, most_slots, places_taken, slots_of, working
from streams.ledger.rounds import identity, summed
from streams.ledger.states import (
    NO_COUNTS,
    Commit,
    GlobalOver,
    GlobalTask,
    Globe,
    Holder,
    Joined,
    Loss,
    Mark,
    Round,
    S,
    Score,
    Spent,
    Tally,
    Zone,
    ZoneOver,
    ZoneTask,
)

__all__ = [
    "MARKS",
    "MOST_BITS",
    "NO_COUNTS",
    "TRANSITIONS",
    "Commit",
    "Diverged",
    "GlobalOver",
    "GlobalTask",
    "Globe",
    "Holder",
    "Joined",
    "Ledger",
    "Loss",
    "Mark",
    "Round",
    "S",
    "Score",
    "Spent",
    "Tally",
    "UnknownRules",
    "Void",
    "Zone",
    "ZoneOver",
    "ZoneTask",
    "at_work",
    "cost",
    "fold",
    "has_devices",
    "identity",
    "known_rules",
    "leads",
    "most_slots",
    "places_taken",
    "restore",
    "shards_of",
    "silent",
    "slots_of",
    "snapshot",
    "summed",
    "working",
]
