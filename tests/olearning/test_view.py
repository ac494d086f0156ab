"""The view knows what the topics say, whenever it is attached, and says in words what is waited for."""

import io
import re
from dataclasses import replace

import pytest
from msgspec.structs import replace as changed
from rich.console import Console

import olearning.books
import olearning.following
from device_sim.availability import Clock
from device_sim.fleet import Fleet, Manner
from olearning.books import MOST_REASONS, OTHER, Letters, Sources
from olearning.monitor.facts import Facts, states_words
from olearning.screen import traffic_tables
from olearning.view import View
from olearning.words import problems
from processors.aggregator import Aggregator
from processors.steerer import Change, Steerer
from schemas.facts import Committed, Counts, Finalised, Rules, Stretch, TaskRefused
from schemas.messages import AggregatorReport, DeadLetter, Evaluation, FleetReport, Objection, Priorities, TaskLoad
from schemas.task import Epochs
from schemas.topics import GLOBAL, topic
from streams.ledger import chains
from streams.memory import Memory
from streams.processor import Answer, Ends, Send, Tick, send
from tests.olearning.watched import ACCURACY, finished, score, watch
from tests.plane import NS, Arithmetic, Plane, spec

WINDOW = Epochs(count=1, rounds=1000, deadline_s=0, window_s=30)
SLOW = Manner(training=(2_000, 3_000), reaction=50, report=500)


@pytest.fixture(scope="module")
def run() -> tuple[Plane, View]:
    return finished()


def zone(view: View, name: str = "east"):
    return next(z for z in view.snapshot(view.now).zones if z.zone == name)


def waits(view: View, name: str = "east") -> str:
    return zone(view, name).rounds[0].waits


# ------------------------------------------------------------------ the same as the ledgers


def test_snapshot_is_what_the_ledgers_say(run):
    plane, view = run
    assert view.caught_up
    assert view.globe == plane.globe()
    assert view.zones == {z: plane.zone(z) for z in plane.zones}
    s = view.snapshot(plane.memory.now)
    (t,) = s.tasks
    assert (t.state, t.epoch, t.epochs, t.waits) == ("ended", 2, 2, "")
    assert t.rounds == {"east": (2, 2), "west": (2, 2)}
    assert t.accuracy == dict(enumerate(ACCURACY))
    for z in s.zones:
        fold = plane.zone(z.zone)
        (r,) = z.rounds
        assert (r.round, r.state, r.devices, r.demand, r.registered) == (4, "over", 6, 6, 0)
        assert [(x.holder, x.token) for x in z.shards] == [(h.holder, h.token) for h in fold.shards]
        assert z.leader == f"zone-{z.zone}"
        ends = [len(p) for p in plane.memory.topics[f"{NS}.{z.zone}.deltas.toy"]]
        assert z.blocks == sum(ends) == fold.over["toy"].offsets == z.identity.offsets
        assert z.identity.counted == 6 * 2 * 4
        assert z.identity.ok
        assert z.unread == 0
        assert sum(z.devices.values()) == plane.devices
        assert z.sent_bytes == plane.hosts[f"fleet-{z.zone}"].processor.outboxes[z.zone].sent_bytes


def test_attached_late_it_knows_the_same(run):
    plane, view = run
    late = watch(plane)
    assert not late.caught_up
    assert plane.memory.run(lambda: late.caught_up, 2_000)
    now = plane.memory.now
    a, b = view.snapshot(now), late.snapshot(now)
    assert a.tasks == b.tasks
    assert (a.letters, a.voids, a.leader) == (b.letters, b.voids, b.leader)
    same = ("rounds", "shards", "devices", "voids", "blocks", "sent_bytes", "read_bytes", "unread", "leader")
    for x, y in zip(a.zones, b.zones, strict=True):
        assert {n: getattr(x, n) for n in same} == {n: getattr(y, n) for n in same}


def test_a_namespace_without_a_record_is_known_to_be_empty():
    plane = Plane(Memory(), zones=())
    plane.hosts["global"].crash()
    view = watch(plane)
    assert plane.memory.run(lambda: view.caught_up, 2_000)
    assert view.snapshot(plane.memory.now).tasks == ()


def test_events_tell_the_story(run):
    plane, _ = run
    heard = []
    late = watch(plane, on_event=heard.append)
    assert plane.memory.run(lambda: late.caught_up, 2_000)
    events = late.drain()
    assert events == heard
    assert late.drain() == []
    texts = [e.text for e in events]
    assert "global: toy admitted to east, west" in texts
    assert "global: toy epoch 1 closed: all zones did their rounds" in texts
    assert "global: toy ended: all 2 epochs are done" in texts
    assert "toy: the global model of epoch 2 has accuracy 0.9000 on 360 samples" in texts
    assert sum(e.kind == "round" and e.values["step"] == "finalised" for e in events) == 8
    assert any(e.kind == "shard" and "took shard" in e.text for e in events)
    assert any(e.kind == "leader" and e.zone == GLOBAL for e in events)


def test_each_round_and_each_epoch_has_its_loss(run):
    plane, view = run
    s = view.snapshot(plane.memory.now)
    assert s.tasks[0].losses == dict.fromkeys(range(len(ACCURACY)), 1.0)
    for z in s.zones:
        done = [f for f in plane.facts(z.zone) if isinstance(f, Finalised)]
        curve = z.rounds[0].curve
        assert [(p.round, p.devices, p.samples) for p in curve] == [(f.round, f.devices, f.samples) for f in done]
        assert [p.loss for p in curve] == [f.mean_loss for f in done]
        assert [p.epoch for p in curve] == [1, 1, 2, 2]
        assert sorted(p.at for p in curve) == [p.at for p in curve]


def test_a_round_that_failed_has_no_loss():
    plane = Plane(Memory(seed=3), zones=("east",), devices=2)
    view = watch(plane)
    plane.submit(spec(demand=3, minimum=3, deadline_s=3))
    assert plane.memory.run(
        lambda: bool(zone(view).rounds and zone(view).rounds[0].curve) if view.books else False, 20_000
    )
    assert [p.loss for p in zone(view).rounds[0].curve] == [None]


def test_the_time_of_day_where_a_fleet_says_it():
    plane = Plane(Memory(seed=3), zones=("east",))
    view = watch(plane)
    plane.memory.run(limit=2_000)
    assert zone(view).local is None
    clock = Clock(utc_offset_h=8.0, day_ms=24_000, origin_ms=plane.memory.now)
    plane.host("late", lambda life: Fleet(NS, "east", "late", life, [], Arithmetic(), plane.manner, clock=clock))
    plane.memory.run(limit=1_700)
    now = plane.memory.now
    local = zone(view).local
    assert local.day == 24_000
    assert local.hours == pytest.approx(clock.hours(now), abs=0.3)  # it takes its way
    assert not local.night
    later = [view.snapshot(view.now + ms).zones[0].local.hours for ms in (0, 500)]
    assert later == pytest.approx([local.hours, local.hours + 0.5])
    plane.memory.run(limit=18_000)
    assert zone(view).local.night
    plane.hosts["late"].crash()
    plane.memory.run(limit=6_000)
    assert zone(view).local is None


def test_while_the_log_is_away_nobody_else_is_blamed(run):
    _, view = run
    then = view.snapshot(view.now)
    later = view.snapshot(view.heard + 60_000)
    assert (then.away, later.away, later.at) == (0, 60_000, view.heard)
    assert later.tasks == then.tasks
    assert {x.word for z in later.zones for x in z.shards} == {"OK"}
    assert problems(later) == ["the log has given no answer for 60 s: all this is how things stood then"]


def test_when_the_log_is_back_nobody_was_silent():
    plane, view = finished()
    view.heard = plane.memory.now
    now = plane.memory.now + 60_000
    list(view.handle(Tick(), now))
    assert view.snapshot(now).away == 60_000
    list(view.handle(Answer(("nobody", "asked")), now))
    s = view.snapshot(now)
    assert (s.away, problems(s)) == (0, [])
    assert not any(x.silent for z in s.zones for x in (*z.fleets, *z.aggregators))


def test_a_log_that_was_not_asked_yet_is_not_away():
    s = View("lab").snapshot(1_700_000_000_000)
    assert (s.away, s.at) == (0, 1_700_000_000_000)


def test_an_idle_log_that_answers_is_not_away():
    plane = Plane(Memory(), zones=())
    plane.hosts["global"].crash()
    view = watch(plane)
    plane.memory.run(limit=30_000)
    assert view.snapshot(plane.memory.now).away == 0


# ------------------------------------------------------------------ waiting, in words


def test_it_names_the_aggregator_that_is_gone():
    plane = Plane(Memory(seed=2), aggregators=1)
    view = watch(plane)
    plane.submit(spec())
    assert plane.memory.run(lambda: "toy" in plane.hosts["zone-east"].processor.zone.tasks, 10_000)
    plane.hosts["agg-east-0"].crash()
    plane.memory.run(limit=8_000)
    assert "agg-east-0 holds it and is silent" in waits(view)
    assert {x.word for x in zone(view).shards} == {"silent"}
    assert zone(view).unread > 0
    assert zone(view).rounds[0].since < plane.memory.now - 5_000
    assert waits(view, "west") == "waiting for east to finish its rounds"
    assert "east to finish its rounds" in view.snapshot(view.now).tasks[0].waits
    plane.hosts["agg-east-0"].restart()
    assert plane.memory.run(lambda: plane.ended("toy"), 60_000)
    plane.memory.run(limit=2_000)
    assert any("its own before it restarted" in e.text for e in view.drain())
    assert zone(view).unread == 0
    assert zone(view).identity.ok


def test_a_zone_whose_leader_is_gone_while_it_waits_for_devices():
    plane = Plane(Memory(seed=2), zones=("east",), devices=2)
    view = watch(plane)
    plane.submit(spec(demand=3, minimum=1, deadline_s=600))
    plane.memory.run(limit=20_000)
    assert "waiting for 1 of 3 devices" in waits(view)
    assert problems(view.snapshot(view.now)) == []
    plane.hosts["zone-east"].crash()
    plane.memory.run(limit=13_000)
    (said,) = problems(view.snapshot(view.now))
    assert (
        said
        == "east: zone-east leads the zone and is silent: nobody admits devices or closes rounds (olearning run zone --zone east)"
    )
    plane.hosts["zone-east"].restart()
    plane.memory.run(limit=3_000)
    assert problems(view.snapshot(view.now)) == []


def test_a_shard_that_stands_still_is_stalled():
    plane = Plane(Memory(seed=2), aggregators=1)
    view = watch(plane, silent_ms=10**9)
    plane.submit(spec())
    assert plane.memory.run(lambda: plane.hosts["fleet-east"].processor.rounds, 10_000)
    plane.hosts["agg-east-0"].crash()
    plane.memory.run(limit=9_000)
    assert "stalled" in {x.word for x in zone(view).shards}
    assert "stands still" in waits(view)


def test_it_says_who_gave_shards_back_to_one_who_joined():
    plane = Plane(Memory(seed=2), zones=("east",), aggregators=1)
    view = watch(plane)
    plane.memory.run(limit=2_000)
    plane.memory.host(lambda life: Aggregator(NS, "east", "late", life))
    plane.memory.run(limit=2_000)
    said = [e.text for e in view.drain() if e.kind == "shard"]
    assert [x.split(" shards ")[0] for x in said] == [
        "east: agg-east-0 took",
        "east: agg-east-0 gave back",
        "east: late took",
    ]
    assert said[2].endswith("(nobody's before)")


def test_shards_that_nobody_ever_held():
    plane = Plane(Memory(seed=2), aggregators=0)
    view = watch(plane)
    plane.submit(spec())
    plane.memory.run(limit=3_000)
    assert {x.word for x in zone(view).shards} == {"nobody"}
    assert "nobody holds it" in waits(view)


def test_it_says_that_all_devices_sleep_or_that_there_are_none():
    plane = Plane(Memory(seed=2), zones=("east",))
    view = watch(plane)
    plane.hosts["fleet-east"].crash()
    plane.submit(spec())
    plane.memory.run(limit=7_000)
    assert waits(view) == "waiting for 6 of 6 devices: no fleet reports any here"
    report = FleetReport("night", "east", plane.memory.now, {"asleep": 6, "idle": 0}, 0, 0)
    plane.memory.append(send(topic(NS, GLOBAL, "metrics"), report))
    plane.memory.run(limit=100)
    assert waits(view) == "waiting for 6 of 6 devices: all 6 devices are asleep"


def test_it_says_who_asks_for_a_sub_model_and_who_has_other_work():
    plane = Plane(Memory(seed=2), zones=("east",), devices=0)
    view = watch(plane)
    plane.submit(spec())
    plane.memory.run(limit=2_000)
    report = FleetReport("more", "east", plane.memory.now, {"training": 2, "asking": 3, "idle": 1}, 0, 0, busy=4)
    plane.memory.append(send(topic(NS, GLOBAL, "metrics"), report))
    plane.memory.run(limit=100)
    assert waits(view) == "waiting for 6 of 6 devices (2 training, 3 asking for a sub-model)"
    assert (zone(view).devices["asking"], zone(view).busy) == (3, 4)
    assert states_words(zone(view)) == "2 training, 3 asking, 1 idle; 4 busy with other work"
    console = Console(width=80, file=io.StringIO())
    console.print(traffic_tables(view.snapshot(view.now)))
    head, row = (line.split() for line in console.file.getvalue().splitlines()[2:4])
    said = dict(zip(head, row, strict=False))
    assert (said["training"], said["asking"], said["busy"]) == ("2", "3", "4"), "at 80 columns too"


def test_a_pause_that_somebody_wanted_is_nothing_to_look_at():
    plane = Plane(Memory(seed=2), zones=("east",))
    view = watch(plane)
    plane.submit(spec(rounds=50))
    assert plane.memory.run(lambda: any(t.waits == {"toy": ("east",)} for t in view.snapshot(view.now).tenants), 5_000)
    plane.memory.host(lambda life: Steerer(NS, "toy", Change("pause"), "ann"))
    assert plane.memory.run(lambda: "paused" in waits(view), 20_000)
    s = view.snapshot(view.now)
    assert problems(s) == []
    assert s.tenants[0].waits == {}, "it waits for a person, not for devices"
    f = Facts(replace(s, at=s.at + 10**7))
    assert (f.task_say(f.s.tasks[0]).sign, f.zone_light(f.s.zones[0]).text) == ("‖", "OK")


def test_it_says_how_many_train():
    plane = Plane(Memory(seed=2), manner=SLOW)
    view = watch(plane)
    plane.submit(spec())
    plane.memory.run(limit=1_500)
    assert waits(view) == "waiting for 6 of 6 devices (6 training)"
    assert zone(view).rounds[0].deadline_left > 50_000


def test_a_zone_that_has_not_started_is_there_if_one_knows_of_it():
    plane = Plane(Memory(seed=2), zones=("east",))
    plane.hosts["zone-east"].crash()
    view = watch(plane, zones=("east",))
    plane.memory.run(limit=500)
    assert [z.zone for z in view.snapshot(view.now).zones] == ["east"]
    assert zone(view).leader == ""


def test_a_leader_that_is_gone_is_waited_for_by_name():
    plane = Plane(Memory(seed=2), zones=("east",), manner=SLOW)
    view = watch(plane)
    plane.submit(spec(deadline_s=5.0))
    plane.memory.run(limit=1_500)
    plane.hosts["zone-east"].crash()
    plane.memory.run(limit=10_000)
    assert "waiting for zone-east" in waits(view)


# ------------------------------------------------------------------ the identity, and that it can go red


def test_a_doctored_fold_turns_the_identity_red():
    _, view = finished(seed=4)
    assert zone(view).identity.ok
    ledger = view.books["east"].reading.ledger
    good = ledger.state
    row = good.over["toy"]
    ledger.state = changed(good, over={"toy": changed(row, covered=row.covered + 1)})
    assert "the shards are read to" in zone(view).identity.problem
    ledger.state = changed(good, over={"toy": changed(row, lost=1)})
    assert "1 lost" in zone(view).identity.problem


def test_a_doctored_fold_of_a_task_at_work_turns_the_identity_red():
    plane = Plane(Memory(seed=4))
    view = watch(plane)
    plane.submit(spec(epochs=2, rounds=2))
    there = lambda: (t := plane.zone("east").tasks.get("toy")) is not None and t.tally.offsets > 0  # noqa: E731
    assert plane.memory.run(there, 60_000)
    plane.memory.run(limit=100)
    assert zone(view).identity.ok
    ledger = view.books["east"].reading.ledger
    good = ledger.state
    t = good.tasks["toy"]
    ledger.state = changed(good, tasks={"toy": changed(t, next=(t.next[0] + 1, *t.next[1:]))})
    assert "the shards are read to" in zone(view).identity.problem
    r = t.rounds[t.round]
    bad = changed(r, tally=r.tally.plus(counts=Counts(counted=1)))
    ledger.state = changed(good, tasks={"toy": changed(t, rounds={**t.rounds, t.round: bad})})
    assert "outcomes" in zone(view).rounds[0].segment.problem
    ledger.state = changed(good, tasks={"toy": changed(t, tally=t.tally.plus(lost=1))})
    assert "1 lost" in zone(view).identity.problem


def test_a_doctored_commit_is_void_and_red_where_a_faulty_fold_takes_it(monkeypatch):
    plane = Plane(Memory(seed=4))
    view = watch(plane)
    plane.submit(spec(epochs=2, rounds=2))
    assert plane.memory.run(
        lambda: plane.zone("east").tasks.get("toy") is not None, 60_000
    )  # once retired, it is void anyway
    z = plane.zone("east")
    next_ = z.tasks["toy"].next[0]
    stretch = Stretch(z.shards[0].token, next_, next_ + 2)
    doctored = Committed("toy", z.tasks["toy"].at[0], {0: stretch}, Counts(counted=3))
    plane.memory.append(send(topic(NS, "east", "ledger"), doctored))
    plane.memory.run(limit=1_500)
    assert zone(view).identity.ok
    assert zone(view).voids["committed"] == 1
    assert any(e.kind == "void" and "the counts do not add up" in e.text for e in view.drain())
    for host in plane.hosts.values():
        host.crash()
    late = watch(plane)
    monkeypatch.setattr(chains, "require", lambda holds, reason: None)
    plane.memory.run(lambda: late.caught_up, 2_000)
    assert "outcomes" in zone(late).identity.problem


def test_a_log_that_ends_below_what_is_committed_is_a_loss():
    plane = Plane(Memory(seed=4))
    view = watch(plane)
    plane.submit(spec(epochs=2, rounds=2))
    log = plane.memory.topics
    there = lambda: (t := plane.zone("east").tasks.get("toy")) and 0 < t.next[0] == len(log[f"{NS}.east.deltas.toy"][0])  # noqa: E731
    assert plane.memory.run(there, 60_000)
    for host in plane.hosts.values():
        host.crash()
    plane.memory.run(limit=1_500)
    del log[f"{NS}.east.deltas.toy"][0][-1]
    late = watch(plane)
    plane.memory.run(lambda: late.caught_up, 2_000)
    assert zone(view).identity.ok
    assert "ends at" in zone(late).identity.problem


# ------------------------------------------------------------------ bad input, bounded memory


def test_garbage_is_told_and_harms_nothing():
    plane, _ = finished(seed=5)
    late = watch(plane)
    for what in ("ledger", "metrics", "dead-letters"):
        plane.memory.append(Send(f"{NS}.{GLOBAL}.{what}", b"\xff\x00"))
    plane.memory.append(Send(f"{NS}.east.registrations", b"\xff\x00", "x"))
    plane.memory.run(limit=1_500)
    s = late.snapshot(late.now)
    assert late.caught_up
    assert sum(s.letters.values()) == 2  # the registration, and the global coordinator's of the ledger record
    assert s.voids == {"unreadable": 1}
    assert {e.kind for e in late.drain()} >= {"void", "letter"}


def test_words_of_strangers_move_no_terminal():
    """A device may say that its delta is in a codec of any name, and the dead letter repeats it."""
    plane, _ = finished(seed=5)
    late = watch(plane)
    codec, letters = "\x1b]0;mine\x07\n", topic(NS, GLOBAL, "dead-letters")
    letter = DeadLetter(f"{NS}.east.deltas.toy", 0, 1, f"codec {codec} is not known", "a", None, None)
    plane.memory.append(send(letters, letter))
    plane.memory.append(send(topic(NS, GLOBAL, "metrics"), Objection("fleet", 1, "toy", codec)))
    plane.memory.append(send(topic(NS, GLOBAL, "ledger"), TaskRefused(late.globe.leader.token, "bad", 1, codec)))
    plane.memory.run(limit=1_500)
    s = late.snapshot(late.now)
    assert list(s.letters) == ["codec \\x1b]0;mine\\x07\\x0a is not known"]
    told = late.drain()
    assert {e.kind for e in told} >= {"letter", "objection"}
    assert all(e.text.isprintable() for e in told)
    assert all(t.why.isprintable() for t in s.tasks)


def test_unknown_rules_stop_it_in_words():
    fresh = Plane(Memory(seed=6))
    view = View(NS)
    host = fresh.memory.host(lambda life: view)
    fresh.memory.run(limit=500)
    for h in fresh.hosts.values():
        h.crash()
    fresh.memory.append(send(topic(NS, "east", "ledger"), Rules(99)))
    fresh.memory.run(limit=100)
    assert not host.stopped.ok
    assert "follows rules 99" in host.stopped.reason


def test_letters_and_sources_stay_bounded():
    letters = Letters()
    for i in range(1_000):
        assert letters.add(str(i), f"reason {i}")
    assert not letters.add("999", "reason 999")
    assert len(letters.reasons) == MOST_REASONS + 1
    assert letters.reasons[OTHER] == 1_000 - MOST_REASONS
    sources = Sources()
    report = AggregatorReport("a", "east", 10, {}, (TaskLoad("toy", 1, 5, 500, {}, 0),))
    sources.hear(report, 10)
    sources.hear(replace_at(report, 20, 2, 200), 20)  # it restarted
    sources.hear(replace_at(report, 15, 9, 900), 21)  # it landed late
    assert (sources.all["a"].blocks, sources.all["a"].bytes) == (7, 700)
    sources.forget(10**9)
    assert not sources.all


def replace_at(r: AggregatorReport, at: int, blocks: int, size: int) -> AggregatorReport:
    load = changed(r.tasks[0], blocks=blocks, bytes=size)
    return changed(r, at=at, tasks=(load,))


def test_of_tasks_that_are_over_only_the_last_have_curves_and_scores(monkeypatch):
    monkeypatch.setattr(olearning.books, "MOST_OVER", 1)
    monkeypatch.setattr(olearning.following, "MOST_OVER", 1)
    plane = Plane(Memory(seed=5), zones=("east",), devices=2)
    view = watch(plane)
    for task in ("one", "two", "three"):
        plane.submit(spec(task=task, epochs=1, rounds=1, demand=2, minimum=1))
        assert plane.memory.run(lambda task=task: plane.ended(task), 60_000)
        plane.memory.run(limit=500)
        score(plane, 1, 0.9, task)
    plane.memory.run(limit=1_000)
    assert set(view.books["east"].curves) == set(view.books["east"].losses) == set(view.accuracy) == {"three"}
    assert [t.state for t in view.snapshot(view.now).tasks] == ["ended"] * 3


def test_the_last_score_is_known_when_the_metrics_are_gone():
    plane, _ = finished(seed=7)
    metrics, scores = (topic(NS, GLOBAL, what) for what in ("metrics", "evaluations"))
    plane.memory.cut(metrics.name, 0, plane.memory.span(metrics.name)[1])
    for epoch, accuracy in enumerate(ACCURACY):
        plane.memory.append(send(scores, Evaluation("eval", 1, "toy", epoch, epoch, accuracy, 1.0, 360), "toy"))
    late = watch(plane)
    plane.memory.run(limit=1_500)
    assert late.caught_up
    assert late.snapshot(late.now).task("toy").accuracy == {2: 0.9}
    assert not [e for e in late.drain() if e.kind == "evaluation"], "it is long ago"
    score(plane, 1, 0.6)
    plane.memory.run(limit=500)
    assert late.snapshot(late.now).task("toy").accuracy == {1: 0.6, 2: 0.9}


def test_an_evaluation_said_twice_is_told_once():
    plane, _ = finished(seed=7)
    late = watch(plane)
    score(plane, 2, 0.9)
    plane.memory.run(limit=1_500)
    assert sum(e.kind == "evaluation" and e.values["epoch"] == 2 for e in late.drain()) == 1
    assert late.snapshot(late.now).task("toy").accuracy[2] == 0.9


# ------------------------------------------------------------------ the scheduler


def test_what_the_scheduler_says_last_and_that_it_says_no_more():
    plane = Plane(Memory(seed=2), scheduler=True, manner=SLOW)
    view = watch(plane)
    for task in ("toy", "more"):
        plane.submit(spec(task))
    assert plane.memory.run(lambda: len(view.orders.get("east", Priorities("", "", 0, (), {})).order) == 2, 20_000)
    plane.memory.run(limit=500)
    late = watch(plane)
    assert plane.memory.run(lambda: late.caught_up, 900)
    for v in (view, late):
        x = zone(v).schedule
        assert x
        assert sorted(x.order) == ["more", "toy"] == sorted(x.order_why)
        assert (x.scheduler, x.silent, x.workers, x.wanted) == ("scheduler", False, 2, 2)
        assert "not known" in x.wanted_why
    plane.hosts["scheduler"].crash()
    plane.memory.run(limit=6_000)
    x = zone(view).schedule
    assert x
    assert x.silent
    assert plane.memory.run(lambda: plane.ended("toy") and plane.ended("more"), 120_000)
    plane.memory.run(limit=1_500)
    assert zone(view).schedule.order == ()  # tasks that are over are in no order


def test_without_a_scheduler_there_is_none_to_show(run):
    assert zone(run[1]).schedule is None


def test_a_view_that_cannot_read_on_where_orders_were_looks_where_they_end():
    view = View(NS)
    (effect,) = view.handle(Answer(("cut", "orders", f"{NS}.east.priorities"), (9, 12), "gone"), 0)
    assert isinstance(effect, Ends)
    (follow,) = view.handle(Answer(effect.tag, {0: 12}), 0)
    assert (follow.topic, follow.offset) == (f"{NS}.east.priorities", 11)


def test_a_window_and_who_is_not_done_when_it_is_over():
    """Without a deadline it waits for a zone that nobody aggregates in, and says for which, and for what there."""
    plane = Plane(Memory(seed=3), aggregators=1)
    view = watch(plane)
    plane.hosts["agg-west-0"].close()
    plane.submit(changed(spec(lease_s=5, deadline_s=8, minimum=1), epochs=WINDOW))
    said = []
    for ms in (15_000, 12_000, 20_000):
        plane.memory.run(limit=ms)
        said.append((view.snapshot(plane.memory.now).tasks[0].waits, waits(view, "east")))
    assert said[0][0] == "waiting for the epoch's window to end, in 15 s"
    assert re.match(r"waiting for \d of 6 devices", said[0][1])  # some may train
    assert said[1][1] == "waiting for the epoch's window to end, in 3 s: no lease lasts so short"
    assert said[2] == ("waiting for west to finish its rounds",) * 2
    assert waits(view, "west") == "waiting for shard 0 and 3 more (nobody holds it; 12 unread)"
