"""The command against a plane that runs: processes, devices that train, a real broker, and bytes that nobody can read."""

import asyncio
import json
import os
import re
import secrets
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

import olearning
from device_sim.installed import prepare, scorer
from olearning.cli import outcome
from olearning.errors import FAILED, OK, USAGE
from olearning.model_files import read_model
from olearning.planes import Processes
from olearning.tasks import parse_task
from olearning.up import Shape
from streams.queries import Cluster, Refused

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]
DIGITS = Path(olearning.__file__).with_name("digits.toml").read_text()
DEVICES = 4
GARBAGE = b"\xff\x00 nobody can read this \x1b[31m"
HEARD = ("global.tasks", "global.ledger", "east.ledger", "east.registrations", "east.deltas.{task}")
"""Topics whose readers decide something: what they cannot read ends in a dead letter."""
UNHEARD = ("global.metrics", "global.models", "east.announcements", "east.admissions", "east.checkins", "east.partials",
           "east.receipts", "global.dead-letters")  # fmt: skip
"""Here it is left out."""


@dataclass
class Live:
    namespace: str
    bootstrap: str
    folder: Path
    said: list[str]
    capsys: Any = None
    ports: dict[str, int] = field(default_factory=dict)
    """By role, where it shows its metrics."""

    def run(self, *words: str) -> tuple[int, str, str]:
        """A command against this plane: exit code, output, errors."""
        self.capsys.readouterr()
        code = outcome([*words, "--namespace", self.namespace, "--bootstrap", self.bootstrap])
        return code, *self.capsys.readouterr()

    def task(self, name: str, rounds: int, **more: str) -> str:
        """A task file: all devices in every round of one epoch."""
        text = DIGITS.replace('task = "digits"', f'task = "{name}"')
        zones = more.get("zones", '["east"]')
        text = re.sub(r"(?s)\[rounds\].*", f"[rounds]\ndemand = {DEVICES}\nover_commit = 1.0\n"
                      f"[epochs]\ncount = 1\nrounds = {rounds}\n", text).replace("[model_args]", f"zones = {zones}\n[model_args]")  # fmt: skip
        file = self.folder / f"{name}.toml"
        file.write_text(text)
        return str(file)

    def json(self, *words: str) -> Any:
        code, out, errors = self.run(*words, "--json")
        assert code == OK, errors
        return json.loads(out)

    def of(self, task: str) -> dict[str, Any]:
        """What `tasks` says of one, or nothing."""
        return next((t for t in self.json("tasks") if t["task"] == task), {})

    def state(self, task: str) -> str:
        return self.of(task).get("state", "")

    def scores(self, task: str) -> dict[str, float]:
        """Its models' accuracy, by epoch."""
        return self.of(task).get("accuracy", {})

    def until(self, condition: Callable[[], bool], seconds: float = 150) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not in time; the plane said {self.said}; {self.run('status')[1]}"


def free_ports(n: int) -> int:
    """A port with n more behind it that nobody has now."""
    for base in range(21_000, 31_000, n + 1):
        try:
            for port in range(base, base + n + 1):
                with socket.socket() as s:
                    s.bind(("", port))
        except OSError:
            continue
        return base
    raise AssertionError("no ports are free")


@pytest.fixture(scope="module")
def running(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One zone with a few devices, in processes of their own; its keeper runs in a thread."""
    live = Live(f"cli-{secrets.token_hex(4)}", broker, tmp_path_factory.mktemp("cli"), [])
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> Processes:
        plane = Processes(broker, live.folder / "logs", live.said.append, metrics_port=free_ports(8))
        shape = Shape(live.namespace, ("east",), devices=DEVICES, partitions=4, day_seconds=0)
        await plane.start([*shape.plane(), *shape.fleets()])
        live.ports = plane.ports
        return plane

    try:
        plane = asyncio.run_coroutine_threadsafe(start(), loop).result(200)
        try:
            yield live
        finally:
            asyncio.run_coroutine_threadsafe(plane.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def live(running: Live, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Live:
    monkeypatch.setenv("COLUMNS", "120")
    running.capsys = capsys
    return running


def write(bootstrap: str, topics: list[str]) -> list[str]:
    """Garbage onto each of them: where it landed."""

    async def send() -> list[str]:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            done = [await producer.send_and_wait(t, GARBAGE, key=b"east-0", partition=0) for t in topics]
        return [f"{d.topic}/{d.partition}/{d.offset}" for d in done]

    return asyncio.run(send())


def test_a_task_is_submitted_watched_and_done(live: Live) -> None:
    code, out, errors = live.run("submit", live.task("first", 2))
    assert (code, out, errors) == (OK, "first runs in east\n", "")
    live.until(lambda: live.state("first") == "ended")
    live.until(lambda: len(live.json("tasks")[0]["accuracy"]) == 2)  # untrained and trained

    code, out, _ = live.run("tasks")
    assert code == OK
    assert re.search(r"first +✓ ended +1/1 +east 2/2 +0\.\d+ → 0\.\d+", out)
    code, out, _ = live.run("status")
    assert code == OK
    for words in ("led by global", "aggregator-east-0", "aggregator-east-1", "✓ yes"):
        assert words in out
    s = live.json("status")
    (zone,) = s["zones"]
    assert zone["zone"] == "east"
    assert {x["holder"] for x in zone["shards"]} == {"aggregator-east-0", "aggregator-east-1"}
    assert zone["identity"]["counted"] == 2 * DEVICES
    assert zone["identity"]["ok"]


def test_any_topic_is_shown(live: Live) -> None:
    code, out, _ = live.run("tail", "east.ledger")
    assert code == OK
    assert [x for x in out.splitlines() if " finalised " in x and "round=2" in x]
    code, out, _ = live.run("tail", f"{live.namespace}.east.deltas.first", "--json")
    assert code == OK
    blocks = [json.loads(x) for x in out.splitlines()]
    assert len(blocks) == 2 * DEVICES
    assert all(b["fields"]["data"]["dtype"] == "int32" and b["fields"]["data"]["l2"] > 0 for b in blocks)
    code, out, _ = live.run("tail", "east.ledger", "-n", "2")
    assert (code, len(out.splitlines())) == (OK, 2)
    code, _, errors = live.run("tail", "east.moon")
    assert code == FAILED
    assert "there is no topic" in errors
    assert "east.deltas.first" in errors


def test_rounds_are_verified_and_explained(live: Live) -> None:
    for n in (1, 2):
        code, out, errors = live.run("verify", "first", str(n), "--zone", "east")
        assert (code, errors) == (OK, ""), out
        assert out.startswith(f"round {n} of first in zone east: OK\n")
        assert f"  {DEVICES} offsets = {DEVICES} counted + 0 duplicate" in out
        assert "every bit the same" in out
    told = live.json("explain", "first", "2", "--zone", "east")
    assert told["verdict"] == "ok"
    assert len(told["slots"]) == DEVICES
    assert all(x["whole"] and x["commits"] for x in told["slots"])
    assert {c["holder"] for c in told["commits"]} <= {"aggregator-east-0", "aggregator-east-1"}
    code, out, _ = live.run("explain", "first", "2", "--zone", "east")
    assert (code, "first round 2 finalised" in out) == (OK, True)

    code, _, errors = live.run("verify", "first", "9", "--zone", "east")
    assert (code, errors) == (FAILED, "olearning: round 9 of first is not in the ledger: the last one is 2\n")
    code, _, errors = live.run("verify", "first", "1", "--zone", "moon")
    assert (code, errors) == (FAILED, f"olearning: there is no zone moon in namespace {live.namespace}; there: east\n")
    code, _, errors = live.run("abandon", "first", "--zone", "east", "--reason", "x", "--yes")
    assert (code, errors) == (FAILED, "olearning: first has lost nothing in zone east: there is nothing to give up\n")

    code, out, _ = live.run("prune", "--dry-run")
    assert code == OK
    assert re.search(r"(?m)^[\w-]+\.east\.models-\d: 0 of \d+ records would go; what follows is younger$", out)
    assert out.endswith("\n0 records would go\n")
    told = live.json("prune", "--days", "0.5", "--topics")  # of tasks that are over their deltas are still kept
    assert {p["topic"].split(".")[1] for p in told} == {"global", "east"}
    assert all(p["start"] == p["cut"] <= p["end"] for p in told)
    assert any(p["end"] for p in told)


def test_what_a_broker_refuses_is_said_in_words(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: object) -> None:
        raise Refused("TopicAuthorizationFailedError")

    monkeypatch.setattr(Cluster, "since", refused)
    code, _, errors = live.run("prune")
    said = f"olearning: the broker at {live.bootstrap} refused it: TopicAuthorizationFailedError\n"
    assert (code, errors) == (FAILED, said)


def test_a_namespace_that_is_not_there(live: Live) -> None:
    elsewhere = Live("nowhere", live.bootstrap, live.folder, [], live.capsys)
    for words in (("status",), ("tasks",), ("tail", "global.ledger"), ("submit", live.task("lost", 1))):
        code, _, errors = elsewhere.run(*words)
        assert code == FAILED, words
        assert f"there is no namespace nowhere at {live.bootstrap}; there: " in errors
        assert live.namespace in errors


def test_a_name_is_never_used_again(live: Live) -> None:
    code, _, errors = live.run("submit", live.task("first", 1))
    assert code == FAILED
    assert "a task named first exists already, and names are never used again" in errors


def test_a_zone_that_does_not_exist_is_refused(live: Live) -> None:
    code, _, errors = live.run("submit", live.task("astray", 1, zones='["east", "moon"]'), "--wait", "10")
    assert code == FAILED
    assert "astray" in errors
    assert "moon" in errors


def test_an_unknown_model_is_refused_before_it_is_sent(live: Live) -> None:
    file = Path(live.task("strange", 1))
    file.write_text(file.read_text().replace('"mlp"', '"gpt"'))
    code, _, errors = live.run("submit", str(file))
    assert code == USAGE
    assert "gpt" in errors
    assert live.state("strange") == ""


def test_garbage_ends_in_dead_letters_and_the_task_finishes(live: Live) -> None:
    pids = {name: pid(live, name) for name in ("global", "zone-east", "aggregator-east-0", "aggregator-east-1")}
    assert live.run("submit", live.task("second", 4))[0] == OK
    heard = write(live.bootstrap, [f"{live.namespace}.{t.format(task='second')}" for t in HEARD])
    write(live.bootstrap, [f"{live.namespace}.{t}" for t in UNHEARD])

    def letters() -> dict[str, str]:
        code, out, _ = live.run("tail", "global.dead-letters", "--json")
        assert code == OK
        found = [json.loads(x) for x in out.splitlines()]
        fields = [x["fields"] for x in found if x["type"] == "dead-letter"]
        return {f"{f['topic']}/{f['partition']}/{f['offset']}": f["reason"] for f in fields}

    live.until(lambda: set(heard) <= letters().keys())
    assert all(letters()[where] for where in heard)
    live.until(lambda: live.state("second") == "ended")

    s = live.json("status")
    (zone,) = s["zones"]
    assert zone["identity"]["ok"]
    assert zone["identity"]["counted"] == 2 * DEVICES + 4 * DEVICES
    assert zone["identity"]["invalid"] == 1  # the garbage in the deltas; it is counted, too
    assert live.said == []  # nobody stopped, nobody was started again
    assert {name: pid(live, name) for name in pids} == pids
    for topic in ("east.announcements", "global.metrics", "east.ledger"):
        code, out, _ = live.run("tail", topic)
        assert code == OK
        assert "unreadable" in out
        assert "\x1b" not in out


def pid(live: Live, name: str) -> int:
    """The process of a role of this plane."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if live.namespace in words and name in words and folder.name != str(os.getpid()):
            return int(folder.name)
    return 0


def test_every_role_shows_what_it_does(live: Live) -> None:
    """After all of the above."""

    def get(port: int, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:  # raises on 503
            return answer.read().decode()

    def value(role: str, series: str) -> float:
        found = re.search(rf"(?m)^{re.escape(series)} (.*)$", get(live.ports[role], "/metrics"))
        assert found, f"{role} shows no {series}"
        return float(found[1])

    assert live.ports.keys() == {
        "global", "zone-east", "aggregator-east-0", "aggregator-east-1", "scheduler", "evaluator", "fleet-east",
    }  # fmt: skip
    for port in live.ports.values():
        get(port, "/healthz")
        get(port, "/readyz")
    assert value("zone-east", 'olearning_leader{scope="east"}') == 1
    assert value("zone-east", 'olearning_facts_void_total{fact="unreadable",scope="east"}') == 1
    assert value("zone-east", 'olearning_dead_letters_total{what="ledger"}') >= 1
    assert value("zone-east", 'olearning_read_records_total{lane="mail"}') >= 2 * DEVICES
    assert value("scheduler", 'olearning_scheduler_workers{zone="east"}') == 2
    sent = value("fleet-east", 'olearning_delta_bytes_sent_total{zone="east"}')
    assert sent == value("fleet-east", 'olearning_sent_bytes_total{lane="bulk"}') > 0
    assert value("evaluator", "olearning_handle_seconds_count") > 0


def test_what_topics_keep_of_tasks_that_are_over_goes(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """After all of the above, as if a week had passed."""
    monkeypatch.setattr("olearning.outlived.KEPT", 0)
    monkeypatch.setattr("olearning.commands.prune.DAY", 1)

    def lines(topic: str) -> list[dict[str, Any]]:
        code, out, errors = live.run("tail", topic, "--json")
        assert code == OK, errors
        return [json.loads(x) for x in out.splitlines()]

    def keys(topic: str, *types: str) -> list[str]:
        return sorted(x["key"] for x in lines(topic) if x["type"] in types)

    def prune(*more: str) -> list[str]:
        code, out, errors = live.run("prune", "--topics", "--days", "0.01", *more)
        assert code == OK, errors
        return [x.removeprefix(f"{live.namespace}.") for x in out.splitlines() if "tombstone" in x]

    letters = len(lines("global.dead-letters"))
    told = [
        f"{topic}: wrote {n} {'tombstone' if n == 1 else 'tombstones'}; {task} is over{where}"
        for topic, n, where in (
            ("east.announcements", 4, " in east"),
            ("global.evaluations", 1, ""),
            ("global.tasks", 1, ""),
        )
        for task in ("first", "second")
    ]
    assert prune("--dry-run") == [x.replace("wrote", "would write") for x in told]
    assert keys("global.tasks", "tombstone") == []
    assert prune() == told
    assert prune() == []
    assert keys("global.tasks", "tombstone") == ["first", "second"]
    assert keys("east.announcements", "tombstone") == ["first"] * 4 + ["second"] * 4

    code, _, errors = live.run("submit", live.task("first", 1))
    assert (code, "names are never used again" in errors) == (FAILED, True)
    assert live.run("submit", live.task("third", 1))[0] == OK
    live.until(lambda: live.state("third") == "ended")
    live.until(lambda: "third" in keys("global.evaluations", "evaluation"))
    assert {x["task"] for x in live.json("prune", "--topics", "--days", "0.01") if "tombstones" in x} == {"third"}
    assert [live.state(task) for task in ("first", "second", "third")] == ["ended"] * 3
    assert len(lines("global.dead-letters")) == letters
    assert live.said == []  # nobody stopped, nobody was started again


def test_the_model_that_comes_out_is_the_one_that_was_scored_and_another_task_begins_with_it(live: Live) -> None:
    """Of a task that is over, whose record is gone."""
    file, out = live.task("third", 1), live.folder / "third.pt"
    spec, accuracy = parse_task(Path(file)), live.scores("third")["1"]
    layout, _ = prepare(spec, 0)
    said = live.json("export", "third", str(out), "--task-file", file)
    assert said == {"task": "third", "epoch": 1, "values": sum(layout.sizes), "tensors": 4, "file": str(out)}
    assert scorer()(spec, read_model(out, layout))[0] == accuracy

    code, said, errors = live.run("submit", live.task("again", 40), "--from", str(out))
    assert (code, said, errors) == (OK, "again runs in east\n", "")
    live.until(lambda: "0" in live.scores("again"))
    assert live.scores("again")["0"] == accuracy
    first = live.folder / "first-0.npz"
    code, said, _ = live.run("export", "again", str(live.folder / "first-{epoch}.npz"), "--epoch", "0")
    assert (code, said) == (OK, f"again: the untrained model, {sum(layout.sizes):,} values in 4 tensors: {first}\n")
    assert read_model(first, layout).tobytes() == read_model(out, layout).tobytes()
    live.until(lambda: live.of("again")["rounds"]["east"][0] > 0)
    assert live.run("stop", "again")[0] == OK  # with what the zone has
    code, said, _ = live.run("export", "again", str(live.folder / "next-{epoch}.npz"), "--follow")
    assert (code, live.state("again")) == (OK, "ended")
    assert said.splitlines()[-1].startswith("again: the model of epoch 1, ")
    live.until(lambda: "1" in live.scores("again"))
    assert scorer()(spec, read_model(live.folder / "next-1.npz", layout))[0] == live.scores("again")["1"] != accuracy
    code, _, errors = live.run("export", "agian", str(out))
    assert (code, errors) == (FAILED, "olearning: there is no task agian; there: again, first, second, third\n")
