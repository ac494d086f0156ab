"""Ledgers that are checkpointed and cut while a plane works: nobody notices, whoever is killed when.

The plane is that of `test_plane.py`, and so are the bits its model must have. The log keeps a copy of what is cut, which no
processor sees; by it a test knows what the ledgers say in truth.
"""

from random import Random

import pytest
from msgspec.structs import replace

import processors.checkpoints
import streams.ledger
from device_sim.fleet import Manner
from olearning.view import View
from processors.checkpoints import cut_at
from processors.evaluator import Evaluator
from processors.globe import GlobalCoordinator
from processors.steerer import Change, Steerer
from processors.submitter import Submitter
from processors.zone import ZoneCoordinator
from schemas.facts import Checkpoint, Claimed, Finalised, Merged, Taken
from schemas.messages import Evaluation
from schemas.topics import GLOBAL
from schemas.wire import decode, encode
from streams.ledger import Diverged, Globe, Ledger, Mark, Zone, snapshot
from streams.memory import Host
from streams.processor import Cut, Send
from streams.reading import Reading
from tests.plane import LAYOUT, NS, START, Archive, Plane, spec
from tests.processors.test_plane import EPOCHS, PATIENT, RIGHT, ZONES, check, finish, oracle
from tests.some import some

EVERY = 10
SCOPES = (GLOBAL, *ZONES)


def name(scope: str, what: str = "ledger") -> str:
    return f"{NS}.{scope}.{what}"


def begun(seed: int = 0, every: int = EVERY, epochs: int = EPOCHS, memory: type[Archive] = Archive, **more) -> Plane:
    plane = Plane(memory(seed=seed), every=every, **more)
    plane.submit(spec(epochs=epochs, **PATIENT))
    return plane


def truth(plane: Plane, scope: str) -> Ledger:
    return plane.fold(Ledger(Globe() if scope == GLOBAL else Zone()), scope)


def start(plane: Plane, scope: str) -> int:
    """Where a ledger begins."""
    return plane.memory.span(name(scope))[0]


class Reader:
    """Reads one ledger, from wherever it begins."""

    membership, tick, name = None, 1_000, "reader"

    def __init__(self, scope: str):
        self.reading = Reading(NS, scope, Globe() if scope == GLOBAL else Zone())

    def start(self, now):
        return self.reading.start()

    def handle(self, event, now):
        if type(event).__name__ == "Record":
            yield from self.reading.record(event)
        elif type(event).__name__ == "Answer":
            yield from self.reading.answer(event)


def read_anew(plane: Plane, scope: str) -> Reading:
    host = plane.memory.host(lambda life: Reader(scope))
    assert plane.memory.run(lambda: host.processor.reading.caught_up, 2_000)
    host.close()
    return host.processor.reading


def readings(plane: Plane) -> dict[tuple[str, str], Reading]:
    """What every coordinator reads."""
    return {(role, r.topic): r for role, host in plane.hosts.items() for r in getattr(host.processor, "readings", ())}


def well(plane: Plane) -> None:
    """The ledgers are what they would be uncut, and a new reader, who has only what is left, knows all of it."""
    for scope in SCOPES:
        fold = truth(plane, scope)
        state = fold.state
        plane.memory.run(limit=20)
        here, there = plane.memory.span(name(scope)), plane.memory.span(name(scope, "checkpoints"))
        assert here[0] == state.cut
        if state.cut:
            assert state.checkpoints[0].offset == state.cut, "the last but one is not there any more"
            assert len(state.checkpoints) >= 2
        assert there[0] == min((p.offset for m in state.checkpoints for p in m.places), default=0)
        mine = read_anew(plane, scope)
        assert (mine.origin > 0) == (state.cut > 0)
        assert snapshot(mine.state) == snapshot(truth(plane, scope).state)


# ------------------------------------------------------------------ without faults


@pytest.mark.parametrize("every", [7, 10, 20])
def test_ledgers_are_cut_and_no_bit_changes(every):
    plane = begun(every=every)
    finish(plane)
    plane.memory.run(limit=1_000)
    check(plane)
    well(plane)
    cuts = {scope: start(plane, scope) for scope in SCOPES}
    assert all(cuts[zone] >= every for zone in ZONES), cuts
    assert len(plane.memory.kept) >= 2


def test_by_default_a_short_run_has_no_checkpoint():
    plane = begun(every=1_000)
    finish(plane)
    assert not any(isinstance(f, Checkpoint) for scope in SCOPES for f in plane.all_facts(scope))


def test_a_ledger_founded_without_checkpoints_has_none():
    plane = begun(every=0)
    finish(plane)
    check(plane)
    assert not any(plane.memory.records(name(scope, "checkpoints")) for scope in SCOPES)
    assert [start(plane, scope) for scope in SCOPES] == [0, 0, 0]


@pytest.mark.parametrize("rounds", some([0, 1, 2]))
def test_a_paused_task_keeps_no_ledger_long(rounds):
    """Paused with so many rounds of its second epoch done; another task goes on meanwhile, and its zones' ledgers are cut."""
    plane = begun()
    plane.submit(spec("other", epochs=5, **PATIENT))
    east = plane.hosts["zone-east"].processor

    def done() -> int:
        t = east.zone.tasks.get("toy")
        return t.round - (t.state != "finalised") if t else 0

    assert plane.memory.run(lambda: done() == 3 + rounds, 400_000)
    pause = plane.memory.host(lambda life: Steerer(NS, "toy", Change("pause"), "ann"))
    assert plane.memory.run(lambda: plane.ended("other"), 400_000)
    assert pause.stopped.ok
    plane.memory.run(limit=2_000)
    well(plane)
    for zone in ZONES:
        at, end = plane.memory.span(name(zone))
        assert end > 100
        assert end - at < 8 * EVERY, f"it is cut at {at}, and ends at {end}"
    plane.hosts["global"].crash()  # what is taken so far is in the ledger
    plane.hosts["global"].restart()
    go_on = plane.memory.host(lambda life: Steerer(NS, "toy", Change("run"), "ann"))
    finish(plane)
    assert go_on.stopped.ok
    check(plane)


@pytest.mark.parametrize("piece", [300, 2_000])
def test_folds_of_many_pieces(piece, monkeypatch):
    monkeypatch.setattr("streams.reading.PIECE", piece)
    plane = begun()
    finish(plane)
    plane.memory.run(limit=1_000)
    check(plane)
    well(plane)
    assert max(len(m.places) for m in plane.zone("east").checkpoints) > 1


def test_ledgers_stay_short_however_long_it_goes_on():
    plane = begun(epochs=8)
    longest = dict.fromkeys(SCOPES, 0)

    def measure() -> bool:
        for scope in SCOPES:
            at, end = plane.memory.span(name(scope))
            longest[scope] = max(longest[scope], end - at)
        return plane.ended("toy")

    assert plane.memory.run(measure, 400_000)
    plane.memory.run(limit=1_000)
    assert plane.model("toy").tobytes() == oracle(epochs=8).tobytes()
    well(plane)
    for zone in ZONES:
        assert plane.zone(zone).position > 3 * longest[zone] / 2, (zone, plane.zone(zone).position, longest)


# ------------------------------------------------------------------ roles that are killed


def roles(plane: Plane) -> list[str]:
    return [n for n in plane.hosts if not n.startswith("fleet")]


@pytest.mark.parametrize("victim", some(["global", "agg-east-0", "zone-east", "agg-west-1"], 2))
@pytest.mark.parametrize("seed", some(range(3)))
def test_killed_again_and_again_it_reads_from_checkpoints(victim, seed):
    plane, dice = begun(seed, every=4, epochs=5), Random(seed)
    origins = set()
    while not plane.ended("toy"):
        host = plane.hosts[victim]
        plane.memory.run(lambda: plane.ended("toy"), dice.randint(50, 1_800))
        origins |= {r.origin for r in [*getattr(host.processor, "readings", ()), host.processor.reading]}
        host.crash()
        plane.memory.run(limit=dice.randint(0, 1_500))
        if not host.stopped:
            host.restart()
        assert plane.memory.now < 400_000, "it does not end"
        plane.memory.run(limit=100)
    plane.memory.run(limit=2_000)
    assert plane.model("toy").tobytes() == oracle(epochs=5).tobytes()
    assert {n: h.stopped for n, h in plane.hosts.items() if h.stopped} == {}
    well(plane)
    assert max(origins) > 0, "it never began from a checkpoint"


@pytest.mark.parametrize("seed", some(range(30), 2))
def test_chaos_on_cut_ledgers_changes_no_bit(seed):
    dice = Random(seed)
    plane = Plane(
        Archive(seed=seed, latency=(1, 10)),
        manner=Manner(training=(50, 400), reaction=100, report=500, resend=0.3),
        every=dice.choice([5, 8, 13, 20]),
    )
    if seed % 2:
        plane.standbys()
    memory = plane.memory
    memory.network = lambda host, s: [memory.delay()] + ([memory.delay() * 5] if dice.random() < 0.05 else [])
    plane.submit(spec(**PATIENT))
    globes = [n for n in plane.hosts if n.startswith("global")]

    def ended() -> bool:
        return any("toy" in plane.hosts[n].processor.globe.over for n in globes)

    for step in range(220):
        if memory.run(ended, 100):
            break
        if step < 80:
            host, throw = plane.hosts[dice.choice(roles(plane))], dice.random()
            if throw < 0.25 and host.alive:
                host.crash()
            elif throw < 0.4 and host.alive and not host.frozen:
                host.freeze()
        for host in plane.hosts.values():
            if not host.alive and not host.stopped and dice.random() < 0.5:
                host.restart()
            elif host.frozen and (step >= 80 or dice.random() < 0.1):
                host.thaw()
    assert ended(), "it does not end"
    for host in plane.hosts.values():
        if host.frozen:
            host.thaw()
        if not host.alive and not host.stopped:
            host.restart()
    memory.run(limit=3_000)
    check(plane)
    well(plane)


@pytest.mark.proof
def test_the_global_leader_has_every_result_that_is_not_taken():
    assert sum(map(restart_the_globe_again_and_again, range(6))) > 3


def restart_the_globe_again_and_again(seed: int) -> int:
    """A restarted one reads a zone's ledger from its cut on, and the cut is never above a result that is not taken: so those it
    must still take are all among the records it reads. How often that mattered."""
    plane, dice, times = begun(seed, every=5, epochs=4), Random(seed), 0
    while not plane.ended("toy") and plane.memory.now < 400_000:
        plane.memory.run(lambda: plane.ended("toy"), dice.randint(1_100, 2_500))
        host = plane.hosts["global"]
        host.crash()
        host.restart()
        assert plane.memory.run(lambda h=host: all(r.caught_up for r in h.processor.readings), 1_000)
        task = plane.globe().tasks.get("toy")
        for zone in ZONES if task else ():
            ledger: Ledger = Ledger(Zone())
            facts = [(r.offset, *ledger.feed(r)) for r in plane.ledger(zone)]
            position = host.processor.zones[zone].state.position
            final = {o for o, f, void in facts if isinstance(f, Finalised) and f.manifest and not void and o < position}
            want = {o for o in final if o >= task.taken[zone]}
            have = {o for o, *_ in host.processor.leader.finals.get(("toy", zone), ())}
            assert want <= have <= final
            origin = host.processor.zone_readings[zone].origin
            times += origin > 0 and bool(want)
            assert origin <= min(want, default=origin)
    plane.memory.run(limit=2_000)
    assert plane.model("toy").tobytes() == oracle(epochs=4).tobytes()
    return times


# ------------------------------------------------------------------ a leader that dies in the middle of it


class Deadly(Archive):
    """Kills who does the n-th thing of a kind: a piece, a `Checkpoint`, or one of the two cuts. `after`: it is done."""

    target = ("", "", 0, False)

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.seen = 0
        self.victim: Host | None = None
        self.network = self.through

    def strikes(self, host: Host, scope: str, what: str) -> bool:
        if self.victim is None and (scope, what) == self.target[:2]:
            self.seen += 1
            if self.seen == self.target[2]:
                self.victim = host
                host.crash()
                self._at(1_500, host.restart)
                return True
        return False

    def through(self, host: Host, s: Send) -> list[int]:
        scope, what = s.topic.split(".")[1:3]
        if what == "ledger":
            what = "fact" if b"checkpoint" in s.value[:20] else ""
        elif what == "checkpoints":
            what = "piece"
        return [self.delay()] if not self.strikes(host, scope, what) or self.target[3] else []

    def _do(self, host: Host, effect) -> None:
        if isinstance(effect, Cut):
            scope, what = effect.topic.split(".")[1:3]
            if self.strikes(host, scope, f"cut {what}") and not self.target[3]:
                return
        super()._do(host, effect)


@pytest.mark.parametrize("after", some([False, True]))
@pytest.mark.parametrize("n", some([1, 2, 5]))
@pytest.mark.parametrize("what", ["piece", "fact", "cut ledger", "cut checkpoints"])
@pytest.mark.parametrize("scope", some(["east", GLOBAL]))
def test_killed_between_the_steps_of_a_checkpoint(scope, what, n, after, monkeypatch):
    monkeypatch.setattr("streams.reading.PIECE", 1_500)
    monkeypatch.setattr(Deadly, "target", (scope, what, n, after))
    plane = begun(every=4, memory=Deadly)
    finish(plane)
    plane.memory.run(limit=3_000)
    check(plane)
    well(plane)
    assert plane.memory.victim is not None or n > 2


# ------------------------------------------------------------------ who else reads


def test_a_late_evaluator_scores_the_models_there_are_and_goes_on():
    plane = begun(every=4, epochs=3)
    assert plane.memory.run(lambda: start(plane, GLOBAL) > 0, 200_000)
    merged = sum(isinstance(f, Merged) for f in plane.facts(GLOBAL))
    host = plane.memory.host(lambda life: Evaluator(NS, "eval", life, lambda spec, v: (0.5, float(v[0]), 10)))
    plane.memory.run(lambda: plane.ended("toy"), 200_000)
    plane.memory.run(limit=500)
    assert host.stopped is None
    assert host.processor.reading.origin > 0
    said = [decode(r.value, (Evaluation,)) for r in plane.memory.records(name(GLOBAL, "metrics")) if r.key == "eval"]
    assert {e.epoch for e in said} >= {*range(merged + 1, 4)}
    assert all(e.epoch == e.version for e in said)
    assert min(e.epoch for e in said) >= merged - 1
    assert float(oracle(epochs=3)[0]) == said[-1].loss


def test_a_submitter_comes_late_and_a_name_is_never_used_again():
    plane = begun(every=4)
    finish(plane)
    plane.memory.run(limit=1_000)
    assert start(plane, GLOBAL) > 0
    again = plane.submit(spec(**PATIENT))
    other = plane.memory.host(lambda life: Submitter(NS, life, spec("other", **PATIENT), LAYOUT, START, 5))
    assert plane.memory.run(lambda: plane.ended("other"), 200_000)
    assert "names are never used again" in again.stopped.reason
    assert other.stopped.ok
    plane.memory.run(limit=1_000)
    check(plane, "other", oracle("other", seed=5))
    well(plane)


def test_a_late_view_shows_how_things_stand():
    plane = begun(every=5, epochs=3)
    early = View(NS)
    plane.memory.host(lambda life: early)
    assert plane.memory.run(lambda: start(plane, GLOBAL) > 0 and start(plane, "east") > 0, 200_000)
    late = View(NS)
    plane.memory.host(lambda life: late)
    assert plane.memory.run(lambda: late.caught_up, 3_000)
    assert plane.memory.run(lambda: plane.ended("toy"), 200_000)
    plane.memory.run(limit=3_000)
    assert late.globe_book.reading.origin > 0
    assert late.books["east"].reading.origin > 0
    assert late.zones == early.zones == {z: plane.zone(z) for z in ZONES}
    assert late.globe == plane.globe()
    a, b = early.snapshot(early.now), late.snapshot(late.now)
    assert [z.identity.problem for z in (*a.zones, *b.zones)] == [""] * 4
    assert [t.state for t in b.tasks] == ["ended"]
    assert [z.blocks for z in a.zones] == [z.blocks for z in b.zones]


def test_what_is_needed_is_known_even_where_the_globe_is_not_read_yet():
    """A new leader of a zone may have read its own ledger and nothing of the globe's: tasks that are there hold the cut back."""
    plane = begun(every=0)
    east, globe = plane.hosts["zone-east"].processor, plane.hosts["global"].processor

    def ready() -> bool:
        t = east.zone.tasks.get("toy")
        return bool(t and t.epoch == 2 and t.merged_rounds)

    assert plane.memory.run(ready, 100_000)
    assert globe.globe.tasks["toy"].taken["east"] > 0
    desk = ZoneCoordinator(NS, "east", plane.partitions, "late", "life")
    desk.ledger.state = plane.zone("east")
    assert desk.needed() == 0
    desk.globe.state = plane.globe()
    assert 0 < desk.needed() == plane.globe().tasks["toy"].taken["east"] < desk.zone.position
    taken = replace(desk.globe.state.tasks["toy"], taken={"east": desk.zone.tasks["toy"].manifest_at + 1})
    desk.globe.state = replace(desk.globe.state, tasks={"toy": taken})
    assert desk.needed() == desk.zone.position, "no result is left to take"
    finish(plane)
    plane.memory.run(limit=500)
    desk.ledger.state, desk.globe.state = plane.zone("east"), Globe()
    assert "toy" in desk.zone.over
    assert desk.needed() == desk.zone.position


def test_where_a_ledger_is_cut():
    kept = tuple(Mark(offset=n, hash=0, places=()) for n in (8, 12, 16))
    state = Zone(position=20, cut=8, checkpoints=kept)
    cuts = {needed: cut_at(state, needed) for needed in (0, 7, 8, 11, 12, 15, 16, 20)}  # a new task's is 0
    assert cuts == {0: 8, 7: 8, 8: 8, 11: 8, 12: 12, 15: 12, 16: 16, 20: 16}
    assert cut_at(Zone(position=20), 20) == 0


# ------------------------------------------------------------------ these must go red


def test_a_leader_that_cuts_above_what_is_taken_is_found_out(monkeypatch):
    """Without the rule about what is needed, a restarted global leader cannot know all results: it stops, and says so."""
    monkeypatch.setattr(ZoneCoordinator, "needed", lambda self: self.zone.position)
    plane = begun(every=4, epochs=1)

    def ready() -> bool:
        return start(plane, "east") > 12 and sum(isinstance(f, Finalised) for f in plane.facts("east")) > 1

    assert plane.memory.run(ready, 100_000)
    host = plane.hosts["global"]
    host.crash()
    for _ in range(3):  # however often it starts: nothing is taken meanwhile
        host.restart()
        plane.memory.run(lambda: bool(host.stopped) or plane.ended("toy"), 100_000)
        assert host.stopped
        assert "is not taken yet" in host.stopped.reason
    assert not any(isinstance(f, Taken) for f in plane.facts(GLOBAL))


def test_a_leader_that_deletes_more_than_the_ledger_says_is_found_out(monkeypatch):
    def too_far(self):
        yield Cut(self.topics[0].name, 0, self.ledger.state.position)

    monkeypatch.setattr(processors.checkpoints.Checkpoints, "cut", too_far)
    plane = begun(every=5)
    assert plane.memory.run(lambda: start(plane, "east") > 0, 100_000)
    host = plane.memory.host(lambda life: View(NS, ZONES))
    plane.memory.run(lambda: bool(host.stopped), 500)
    assert host.stopped
    assert "there is no checkpoint in it to begin from" in host.stopped.reason


def test_the_ledger_refuses_a_cut_above_the_last_but_one(monkeypatch):
    greedy = lambda state, needed: max(state.position // EVERY * EVERY, state.cut)  # noqa: E731
    monkeypatch.setattr(processors.checkpoints, "cut_at", greedy)
    plane = begun()
    finish(plane)
    ledger: Ledger = Ledger(Zone())
    fed = [ledger.feed(r) for r in plane.ledger("east")]
    reasons = [void for f, void in fed if isinstance(f, Checkpoint)]
    assert reasons
    assert all("cannot be cut at" in r for r in reasons)
    assert start(plane, "east") == 0


@pytest.mark.parametrize("scope", SCOPES)
def test_a_reader_with_one_rule_changed_stops(scope, monkeypatch):
    plane = begun()
    finish(plane)
    kind = Globe if scope == GLOBAL else Zone
    rules = streams.ledger.TRANSITIONS[kind]
    then = rules[Claimed]
    longer = lambda s, at, time, f: replace(then(s, at, time, f), zone=s.zone + "x")  # noqa: E731
    truth(plane, scope)
    monkeypatch.setitem(rules, Claimed, longer)
    with pytest.raises(Diverged, match="run one version everywhere"):
        truth(plane, scope)


def test_snapshots_are_canonical():
    plane = begun()
    finish(plane)
    for scope in SCOPES:
        state = truth(plane, scope).state
        again = streams.ledger.restore(snapshot(state), type(state))
        assert again == state
        assert encode(again) == encode(state) == snapshot(state)


def test_it_is_the_model_of_the_oracle():
    plane = begun()
    finish(plane)
    assert plane.model("toy").tobytes() == RIGHT.tobytes()


def test_standbys_take_over_a_cut_ledger():
    plane = begun(every=6)
    plane.host("global-b", lambda life: GlobalCoordinator(NS, ZONES, plane.partitions, "global-b", life))
    for zone in ZONES:
        plane.host(f"{zone}-b", lambda life, z=zone: ZoneCoordinator(NS, z, plane.partitions, f"{z}-b", life))
    assert plane.memory.run(lambda: all(start(plane, z) > 0 for z in ZONES), 200_000)
    for role in ("global", "zone-east", "zone-west"):
        plane.hosts[role].crash()
    assert plane.memory.run(lambda: "toy" in plane.globe().over, 200_000)
    plane.memory.run(limit=3_000)
    check(plane)
    well(plane)
