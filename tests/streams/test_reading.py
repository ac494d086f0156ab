"""A ledger is read from wherever it begins, and nothing but its own fold or a checkpoint with the right hash is believed."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace

import streams.ledger
from schemas.blocks import Place
from schemas.facts import LEADERSHIP, Checkpoint, Claimed, Founded, Rules
from schemas.topics import topic
from schemas.wire import checksum, encode
from streams.ledger import Diverged, Ledger, Zone, snapshot
from streams.memory import Host, Memory
from streams.processor import Answer, Effect, Follow, Input, Record, Send, Stop, send
from streams.reading import ATTEMPTS, PIECE, WRONG, Reading, pieces

LEDGER, PIECES = topic("test", "z", "ledger"), topic("test", "z", "checkpoints")
EVERY = 4


class Reader:
    """A processor that only reads."""

    name, membership, tick = "reader", None, 1_000

    def __init__(self, life: str) -> None:
        self.reading = Reading("test", "z", Zone(), self.jumped)
        self.seen: list[int] = []
        self.jumps: list[int] = []
        self.caught_up_at: int | None = None

    def jumped(self) -> Iterable[Effect]:
        self.jumps.append(self.reading.state.position)
        return ()

    def start(self, now: int) -> Iterable[Effect]:
        return self.reading.start()

    def handle(self, event: Input, now: int) -> Iterator[Effect]:
        try:
            match event:
                case Record():
                    if (yield from self.reading.record(event)) is not None:
                        self.seen.append(event.offset)
                case Answer():
                    yield from self.reading.answer(event) or ()
        except WRONG as e:
            yield Stop(str(e))
        if self.reading.caught_up and self.caught_up_at is None:
            self.caught_up_at = self.reading.state.position


class World:
    """A zone's ledger in memory, its leader's fold of it, and its checkpoints, made by hand."""

    def __init__(self, shards: int = 1) -> None:
        self.memory = Memory(seed=3)
        self.memory.create(LEDGER.name, 1)
        self.memory.create(PIECES.name, 1)
        self.fold = Ledger(Zone())
        self.count = 0
        self.add(Founded("l", "z", shards, every=EVERY), Claimed("leader", "life", {LEADERSHIP: 0}))

    def add(self, *facts: Any) -> None:
        for fact in facts:
            self.memory.append(send(LEDGER, fact, partition=0))
            with suppress(Diverged):  # of a test's lies
                self.fold.feed(self.memory.records(LEDGER.name)[-1])

    def fill(self, to: int) -> None:
        """Void facts up to an offset."""
        while self.fold.state.position < to:
            self.add(Rules(0))

    def checkpoint(self, offset: int, cut: int = 0, state: Zone | None = None, **more: Any) -> Checkpoint:
        """Write the fold of an offset and say so; `more` are lies about it."""
        data = snapshot(state or self.fold.marks[offset])
        places = []
        for piece in pieces(data, "l", offset):
            self.count += 1
            key = f"k{self.count}"
            at = self.memory.append(send(PIECES, piece, key, 0))
            places.append(Place(*at, key, checksum(piece.data)))
        fact = Checkpoint(
            **{"token": 1, "offset": offset, "hash": checksum(data), "places": tuple(places), "cut": cut} | more
        )
        self.add(fact)
        assert (self.fold.state.checkpoints[-1].offset == offset) == (not more)
        return fact

    def cut(self, at: int) -> None:
        self.memory.cut(LEDGER.name, 0, at)

    def reader(self) -> tuple[Host, Any]:
        host = self.memory.host(Reader)  # type: ignore[arg-type]
        return host, host.processor

    def read(self) -> tuple[Host, Any]:
        host, reader = self.reader()
        self.memory.run(limit=500)
        return host, reader


def checkpoints(world: World, upto: int, start: int = EVERY) -> None:
    """One for each multiple, each cutting at the one before the last, on the ledger only."""
    for offset in range(start, upto + 1, EVERY):
        world.fill(offset)
        world.checkpoint(offset, max(0, offset - EVERY) if offset > EVERY else 0)
    world.fill(upto + EVERY)


def same(world: World, reader: Any) -> None:
    assert snapshot(reader.reading.state) == snapshot(world.fold.state)
    assert reader.reading.caught_up


# ------------------------------------------------------------------ where it begins


def test_a_whole_ledger_is_folded_from_its_first_record():
    world = World()
    checkpoints(world, 12)
    _, reader = world.read()
    same(world, reader)
    assert reader.seen == list(range(world.fold.state.position))
    assert (reader.jumps, reader.reading.origin) == ([], 0)
    assert reader.caught_up_at == world.fold.state.position


def test_an_empty_ledger_is_caught_up_at_once():
    world = World()
    world.memory.lose(LEDGER.name, 0, 0)
    _, reader = world.read()
    assert reader.caught_up_at == 0


@pytest.mark.parametrize("cut", [4, 8])
def test_a_cut_ledger_is_read_from_the_first_checkpoint_at_the_cut(cut):
    world = World()
    checkpoints(world, 12)
    world.cut(cut)
    _, reader = world.read()
    same(world, reader)
    assert reader.jumps == [cut]
    assert reader.reading.origin == cut
    assert reader.seen == list(range(cut, world.fold.state.position))
    assert min(reader.reading.ledger.marks) >= cut
    assert reader.caught_up_at == world.fold.state.position  # not where the checkpoint is


def test_the_state_it_begins_from_is_one_of_its_marks_and_compared():
    """A leader that folds otherwise gives pieces with the hash it says: the reader begins from them, folds the next multiple
    by its own rules, and what the leader says of that one is another thing."""
    world = World()
    world.fill(4)
    lie = replace(world.fold.marks[4], registrations=(7,))
    world.checkpoint(4, state=lie)
    world.fill(8)
    world.checkpoint(8, 4)
    world.cut(4)
    host, reader = world.read()
    assert reader.jumps == [4]
    assert "folds otherwise" in host.stopped.reason


def test_a_fold_of_several_pieces(monkeypatch):
    monkeypatch.setattr("streams.reading.PIECE", 100)
    world = World(shards=20)
    checkpoints(world, 8)
    assert len(world.fold.state.checkpoints[-1].places) > 3
    world.cut(4)
    _, reader = world.read()
    same(world, reader)
    assert PIECE == 256 * 1024


def test_restored_again_it_is_the_same_bytes():
    world = World()
    checkpoints(world, 8)
    world.cut(4)
    _, reader = world.read()
    assert encode(reader.reading.state) == encode(world.fold.state)
    assert reader.reading.ledger.marks[8] == world.fold.marks[8]


# ------------------------------------------------------------------ while it is cut


def test_cut_while_it_is_read():
    """A reader far behind finds its next record gone: it goes on from the checkpoint, and skips nothing after that."""
    world = World()
    checkpoints(world, 12)
    host, reader = world.reader()
    world.memory.run(lambda: len(reader.seen) == 3)
    host.freeze()
    checkpoints(world, 20, 16)
    world.cut(16)
    host.thaw()
    world.memory.run(limit=500)
    same(world, reader)
    assert reader.jumps == [16]
    assert reader.seen[-1] == world.fold.state.position - 1
    later = [x for x in reader.seen if x >= 16]
    assert later == list(range(16, world.fold.state.position))


@pytest.mark.parametrize("step", range(1, 12))
def test_cut_again_at_any_point_of_looking(step):
    """The log may be cut, and the pieces with it, while a checkpoint is looked for or fetched."""
    world = World()
    checkpoints(world, 12)
    world.cut(8)
    host, reader = world.reader()
    world.memory.run(lambda: host.handled >= step)
    checkpoints(world, 24, 16)
    world.cut(20)
    world.memory.cut(PIECES.name, 0, world.fold.state.checkpoints[0].places[0].offset)
    world.memory.run(limit=500)
    assert host.stopped is None
    same(world, reader)
    seen = [x for x in reader.seen if x >= max(reader.jumps)]
    assert seen == list(range(max(reader.jumps), world.fold.state.position))


def test_what_comes_after_is_followed():
    world = World()
    checkpoints(world, 8)
    world.cut(4)
    _, reader = world.read()
    world.fill(40)
    world.memory.run(limit=500)
    same(world, reader)


# ------------------------------------------------------------------ what is not believed


def test_pieces_that_are_gone_lead_to_the_next_checkpoint():
    world = World()
    checkpoints(world, 12)
    world.cut(8)
    world.memory.cut(PIECES.name, 0, 2)  # those of 4 and 8
    _, reader = world.read()
    same(world, reader)
    assert reader.jumps == [12]


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ({"hash": 1}, "do not have its hash"),
        ({"places": ()}, "do not have its hash"),
        ({"places": (Place(0, 0, "nowhere", 0),)}, "nowhere): not there"),
        ({"places": (Place(0, 0, "k1", 5),)}, "is not what was written"),
    ],
)
def test_a_checkpoint_whose_pieces_are_wrong_is_passed_over(lie, words):
    """Such a fact has no right token here, so the leader's own fold does not go wrong; a reader that looks cannot know that."""
    world = World()
    world.fill(4)
    world.checkpoint(4)
    world.fill(8)
    world.checkpoint(8, **{"token": 9} | lie)
    world.cut(7)
    host, reader = world.read()
    assert (reader.jumps, reader.seen) == ([], [])
    assert words in host.stopped.reason
    world.fill(12)
    world.checkpoint(12)
    _, reader = world.read()
    same(world, reader)
    assert reader.jumps == [12]


def test_without_any_checkpoint_it_stops_in_words_after_looking_some_times():
    world = World()
    world.fill(9)
    world.cut(6)
    host, reader = world.read()
    assert not host.stopped.ok
    assert "begins at 6, and there is no checkpoint in it" in host.stopped.reason
    assert reader.seen == []
    looks = sum(isinstance(e, Answer) and isinstance(e.value, tuple) for e in trace(world))
    assert looks == ATTEMPTS


def trace(world: World) -> list[Input]:
    """The inputs of one more reader."""
    inputs: list[Input] = []

    class Traced(Reader):
        def handle(self, event: Input, now: int) -> Iterator[Effect]:
            inputs.append(event)
            return super().handle(event, now)

    world.memory.host(Traced)  # type: ignore[arg-type]
    world.memory.run(limit=500)
    return inputs


def test_cut_to_its_end_it_stops_in_words():
    world = World()
    world.fill(9)
    world.cut(9)
    host, _ = world.read()
    assert "begins at 9, and there is no checkpoint" in host.stopped.reason


def test_a_log_that_lost_its_end_is_never_read_on():
    world = World()
    world.fill(9)
    host, reader = world.read()
    same(world, reader)
    world.memory.lose(LEDGER.name, 0, 5)
    world.memory.run(limit=500)
    assert "ends at 5, and 9 was wanted: records are lost" in host.stopped.reason


def test_a_checkpoint_above_its_own_record_is_nonsense():
    world = World()
    world.fill(8)
    world.memory.append(send(LEDGER, Checkpoint(1, 40, 0, (), 0), partition=0))
    world.cut(6)
    host, _ = world.read()
    assert "there is no checkpoint in it to begin from:" in host.stopped.reason


def test_a_checkpoint_below_the_cut_is_no_beginning():
    """What lies between it and the cut is gone, though the fact that names it is there."""
    world = World()
    world.fill(6)
    world.checkpoint(4)
    world.cut(5)
    host, reader = world.read()
    assert reader.jumps == []
    assert "begins at 5, and there is no checkpoint in it" in host.stopped.reason


def test_a_fold_of_unknown_rules_stops_it():
    world = World()
    world.fill(4)
    world.checkpoint(4, state=replace(world.fold.marks[4], rules=99))
    world.cut(4)
    host, _ = world.read()
    assert "follows rules 99" in host.stopped.reason


def test_a_reader_with_one_rule_changed_stops(monkeypatch):
    world = World()
    checkpoints(world, 8)
    then = streams.ledger.TRANSITIONS[Zone][Claimed]
    changed = lambda s, at, time, f: replace(then(s, at, time, f), admitted=1)  # noqa: E731
    monkeypatch.setitem(streams.ledger.TRANSITIONS[Zone], Claimed, changed)  # type: ignore[arg-type]
    host, reader = world.read()
    assert "run one version everywhere" in host.stopped.reason
    assert reader.seen == [0, 1, 2, 3]  # the next is the checkpoint of 4


# ------------------------------------------------------------------ whose answers


def test_answers_of_others_are_left_alone():
    reading, other = Reading("test", "z", Zone()), Reading("test", "y", Zone())
    for r in (reading, other):
        list(r.start())
    for tag in (1, "x", ("reading", "else", 1), None, ("ends",)):
        assert reading.answer(Answer(tag, {0: 3})) is None
    assert reading.answer(Answer(("reading", LEDGER.name, "end"), {0: 3})) == []
    assert other.answer(Answer(("reading", LEDGER.name, "end"), {0: 3})) is None
    assert not reading.caught_up


def test_an_old_refusal_is_of_no_interest():
    reading = Reading("test", "z", Zone())
    (follow, _) = reading.start()
    assert isinstance(follow, Follow)
    (again,) = reading.answer(Answer(follow.tag, (5, 9), "cut")) or ()
    assert again == Follow(LEDGER.name, 0, 5, again.tag)  # type: ignore[union-attr]
    assert reading.answer(Answer(follow.tag, (5, 9), "cut")) == []


def test_garbage_is_void_and_passed_over():
    world = World()
    checkpoints(world, 8)
    world.memory.append(Send(LEDGER.name, b"\xff", partition=0))
    world.fold.feed(world.memory.records(LEDGER.name)[-1])
    world.cut(4)
    _, reader = world.read()
    same(world, reader)
