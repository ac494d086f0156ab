"""The device registry: how many devices each zone has, from their check-ins alone."""

from processors.registry import Registry
from schemas.messages import CheckIn, RegistryReport
from schemas.topics import DAY, GLOBAL, read, topic
from schemas.wire import encode
from streams.memory import Memory
from streams.processor import Follow, Record, Send, send
from tests.plane import NS, Plane


def reports(plane: Plane) -> list[RegistryReport]:
    records = plane.memory.records(topic(NS, GLOBAL, "metrics").name)
    found = [read(r.topic, r.value, r.headers) for r in records]
    return [m for m in found if isinstance(m, RegistryReport)]


def say(plane: Plane, zone: str, *devices: str, gone: bool = False) -> None:
    for d in devices:
        plane.memory.append(send(topic(NS, zone, "checkins"), CheckIn(d, {}, gone), d))


def plane() -> Plane:
    made = Plane(Memory(seed=1), devices=0)
    made.memory.run(limit=3_000)
    return made


def last(plane: Plane, ms: int = 12_000) -> dict[str, tuple[int, int, int]]:
    plane.memory.run(limit=ms)
    return {z: (p.devices, p.came, p.left) for z, p in reports(plane)[-1].zones.items()}


def test_devices_are_counted_once_however_often_they_check_in():
    p = plane()
    say(p, "east", "a", "b", "a", "c")
    say(p, "west", "a")
    assert last(p) == {"east": (3, 3, 0), "west": (1, 1, 0)}


def test_who_moves_leaves_one_zone_and_comes_to_another():
    p = plane()
    say(p, "east", "a", "b")
    say(p, "east", "a", gone=True)
    say(p, "east", "never-here", gone=True)
    say(p, "west", "x")
    assert last(p) == {"east": (1, 2, 1), "west": (1, 1, 0)}


def test_who_is_not_heard_of_for_a_day_is_forgotten():
    registry, name = Registry(NS, "global"), topic(NS, "east", "checkins").name
    assert len([e for e in registry.follow("east", 4) if isinstance(e, Follow)]) == 4
    registry.ended(name, dict.fromkeys(range(4), 0))
    for device, at in (("a", 1_000), ("b", 1_000), ("b", DAY)):
        assert list(registry.checkin(Record(name, 0, 0, device, encode(CheckIn(device)), at))) == []
    counts = []
    for now in (DAY, DAY + 10_000, 2 * DAY + 1):
        for effect in registry.report(now, {}):
            counts.append(read(effect.topic, effect.value, effect.headers).zones["east"].devices)
    assert counts == [2, 1, 0]


def test_another_leader_knows_the_same():
    p = plane()
    say(p, "east", "a", "b")
    last(p)
    p.hosts["global"].crash()
    p.memory.run(limit=10_000)
    p.hosts["global"].restart()
    assert last(p, 60_000)["east"] == (2, 2, 0)


def test_a_new_leader_does_not_speak_of_a_zone_that_it_has_not_read():
    registry, name = Registry(NS, "global"), topic(NS, "east", "checkins").name
    said = []
    for zone in ("east", "west"):
        list(registry.follow(zone, 1))
    for step in (
        lambda: registry.ended(name, {0: 2}),
        lambda: list(registry.checkin(Record(name, 0, 0, "a", encode(CheckIn("a")), DAY))),
        lambda: list(registry.checkin(Record(name, 0, 1, "b", encode(CheckIn("b")), DAY))),
    ):
        step()
        said.append([read(e.topic, e.value, e.headers).zones for e in registry.report(DAY, {})])
    assert [{z: p.devices for z, p in zones.items()} for zones in said.pop()] == [{"east": 2}]
    assert said == [[], []]


def test_who_does_not_lead_any_more_keeps_no_devices():
    p = plane()
    p.standbys()
    say(p, "east", "a", "b")
    last(p)
    first, second = (p.hosts[n].processor for n in ("global", "global-b"))
    p.hosts["global"].freeze()
    assert p.memory.run(lambda: bool(second.token), 60_000)
    p.hosts["global"].thaw()
    say(p, "east", "c")
    p.memory.run(limit=10_000)
    assert (first.token, first.registry.seen) == (0, {})
    assert {z: sorted(d) for z, d in second.registry.seen.items()} == {"east": ["a", "b", "c"], "west": []}
    p.hosts["global-b"].crash()
    assert p.memory.run(lambda: bool(first.token), 60_000)
    assert last(p, 60_000)["east"] == (3, 3, 0)


def test_what_cannot_be_read_is_a_dead_letter():
    p = plane()
    say(p, "east", "a")
    p.memory.append(Send(topic(NS, "east", "checkins").name, b"\xff", "x", 0))
    p.memory.append(send(topic(NS, "east", "checkins"), CheckIn("b"), "another's key", 0))
    assert last(p)["east"] == (1, 1, 0)
    letters = p.memory.records(topic(NS, GLOBAL, "dead-letters").name)
    assert len(letters) == 2


def test_fleets_check_in_by_themselves():
    p = Plane(Memory(seed=1), devices=5)
    assert last(p) == {"east": (5, 5, 0), "west": (5, 5, 0)}


def test_no_device_is_left_out_however_many_there_are_and_wherever():
    """Propius' scheduler reads the first of its client databases alone, and 1,000 clients of it."""
    p = plane()
    for zone, devices in (("east", 1_500), ("west", 1_200)):
        say(p, zone, *(f"{zone}-{n}" for n in range(devices)))
    assert last(p) == {"east": (1_500, 1_500, 0), "west": (1_200, 1_200, 0)}
    seen = p.hosts["global"].processor.registry.seen
    assert {z: d.table.shape for z, d in seen.items()} == {"east": (1_500, 5), "west": (1_200, 5)}
