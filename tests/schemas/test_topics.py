"""The topic table: names that Kafka takes and that read back, scopes, settings."""

import os
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.messages import Registration
from schemas.topics import DAY, GLOBAL, TABLE, BadName, parse, read, task_topics, topic, zone_topics
from schemas.wire import Malformed, decode, encode

slugs = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
BAD = ["", "-a", "a-", "-", "a.b", "a_b", "A", "zoneA", "a b", "a\n", "\na", "zürich", "ａ", "٣", "a/b", "a" * 64]
GOOD = ["a", "7", "a-b", "a--b", "asia-2", "a" * 63]


def every(namespace: str, zone: str, task: str):
    return [*zone_topics(namespace, zone), *zone_topics(namespace, GLOBAL), *task_topics(namespace, zone, task)]


@pytest.mark.parametrize("text", BAD)
def test_what_is_not_a_slug_is_refused(text):
    with pytest.raises(BadName, match="namespace"):
        topic(text, "asia", "checkins")
    with pytest.raises(BadName, match="zone"):
        topic("demo", text, "checkins")
    if text:
        with pytest.raises(BadName, match=re.escape(f"task {text!r}: use 1 to 63 of a-z")):
            topic("demo", "asia", "deltas", text)


@pytest.mark.parametrize("text", [t for t in BAD + GOOD if t])
def test_messages_and_topics_agree_on_slugs(text):
    value = encode(Registration("d", text, 1))
    if text in GOOD:
        assert topic("demo", "asia", "deltas", text).task == decode(value, (Registration,)).task == text
    else:
        with pytest.raises(Malformed):
            decode(value, (Registration,))


@given(slugs, slugs.filter(lambda z: z != GLOBAL), slugs)
def test_names_read_back(namespace, zone, task):
    for t in every(namespace, zone, task):
        assert parse(t.name) == t


def test_names_fit_kafka():
    names = [t.name for t in every("n" * 63, "z" * 63, "t" * 63)]
    assert len(names) == len(set(names))
    for name in names:
        assert len(name) <= 249
        assert re.fullmatch(r"[a-z0-9.-]+", name)


def test_names():
    assert topic("demo", "asia", "deltas", "wine").name == "demo.asia.deltas.wine"
    assert topic("demo", GLOBAL, "ledger").name == "demo.global.ledger"


@pytest.mark.parametrize(
    "name", ["", "demo", "demo.asia", "demo.asia.other", "demo.asia.checkins.", "demo..checkins", ".asia.checkins",
             "demo.Asia.checkins", "demo.asia.deltas", "demo.asia.checkins.wine", "demo.asia.deltas.wine.x",
             "demo.asia.deltas.", "demo.global.checkins", "demo.global.deltas.wine", "demo.asia.tasks", "__consumer_offsets"],
)  # fmt: skip
def test_a_name_of_none_of_ours(name):
    with pytest.raises(KeyError):
        parse(name)


def test_scopes():
    for kind in TABLE:
        for scope in (GLOBAL, "asia"):
            task = "wine" if kind.per_task else ""
            if (scope if scope == GLOBAL else "zone") in kind.scopes:
                assert topic("demo", scope, kind.what, task).kind is kind
            else:
                with pytest.raises(KeyError, match=f"no {kind.what} topic"):
                    topic("demo", scope, kind.what, task)
            with pytest.raises(KeyError):  # a task where none belongs, or none where one must be
                topic("demo", scope, kind.what, "" if kind.per_task else "wine")


def test_what_a_zone_a_globe_and_a_task_have():
    both = {k.what for k in TABLE if len(k.scopes) == 2}
    assert both == {"ledger", "checkpoints", "models"}
    assert {t.kind.what for t in zone_topics("demo", GLOBAL)} == both | {
        "tasks",
        "tenants",
        "evaluations",
        "metrics",
        "dead-letters",
    }
    assert {t.kind.what for t in zone_topics("demo", "asia")} == {
        k.what for k in TABLE if "zone" in k.scopes and not k.per_task
    }
    assert [t.name for t in task_topics("demo", "asia", "wine")] == ["demo.asia.deltas.wine"]


def test_partitions():
    """All that devices send or read, and what holds their deltas, has the zone's P; what must be in one order has one."""
    for t in every("demo", "asia", "wine"):
        ordered = {
            "ledger",
            "checkpoints",
            "tasks",
            "tenants",
            "evaluations",
            "priorities",
            "credits",
            "metrics",
            "dead-letters",
        }
        assert t.partitions(8) == (1 if t.kind.what in ordered else 8), t.name
        if t.kind.key == "device":
            assert t.partitions(5) == 5


def test_settings_at_the_broker():
    config = {t.kind.what: t.config() for t in every("demo", "asia", "wine")}
    for what, settings in config.items():
        compacted = {"segment.ms"} if settings["cleanup.policy"] == "compact" else set()
        others = {"cleanup.policy", "retention.ms", "message.timestamp.type", "compression.type"}
        assert set(settings) == others | compacted, what
        assert all(type(v) is str for v in settings.values())
    assert {w for w, c in config.items() if c["cleanup.policy"] == "compact"} == {
        "tasks",
        "tenants",
        "evaluations",
        "announcements",
    }
    assert {c["message.timestamp.type"] for c in config.values()} == {"LogAppendTime"}
    for forever in ("ledger", "checkpoints", "models", "tasks"):
        assert config[forever]["retention.ms"] == "-1"
    assert config["deltas"]["retention.ms"] == config["partials"]["retention.ms"] == str(7 * DAY)
    assert config["dead-letters"]["retention.ms"] == str(30 * DAY)


def test_offsets_of_deltas_are_dense():
    """The ledger tiles them: never compacted. What is compacted has a key to compact by."""
    assert all(not k.compact for k in TABLE if k.what in ("deltas", "partials", "ledger", "models"))
    assert all(k.key != "–" for k in TABLE if k.compact)


def test_rows_are_told_apart_and_explained():
    assert len({k.what for k in TABLE}) == len(TABLE)
    assert all(k.about and k.key for k in TABLE)
    assert [k.what for k in TABLE if not k.carries] == ["shards"]


class Evil:
    """Whoever unpickles this runs what the sender says."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_pickle_is_refused_on_every_topic_and_never_run(tmp_path):
    """Propius' clients, jobs and servers send each other pickles."""
    value = pickle.dumps(Evil(tmp_path / "ran"))
    for t in every("demo", "asia", "wine"):
        with pytest.raises(Malformed):
            read(t.name, value)
    assert not (tmp_path / "ran").exists()
    pickle.loads(value)
    assert (tmp_path / "ran").exists(), "it would have run"
