"""The command without a broker: what it refuses and how it says so, how it ends, and where it looks for a broker."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import olearning
import olearning.demo
from olearning import connect
from olearning.cli import app, outcome
from olearning.completing import remember
from olearning.connect import Broker, Noted, address, attended, broker_folder, choose, find, planes
from olearning.demo import Demo
from olearning.errors import FAILED, INTERRUPTED, NO_BROKER, OK, TERMINATED, USAGE, Trouble
from olearning.hosting import must_exist, visit
from olearning.planes import InMemory, last_words, next_pause
from olearning.roles import Role, Start
from olearning.snapshot import Snapshot, TaskView
from olearning.tasks import parse_task
from olearning.telemetry import logs
from olearning.up import Shape, refuse_twice, run_folder
from olearning.view import View
from schemas.topics import BadName
from streams.jars import BrokerError
from streams.kafka import BrokerGone
from tests.olearning.watched import finished

DIGITS = Path(olearning.__file__).with_name("digits.toml")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nothing of ours runs."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.delenv("OLEARNING_NAMESPACE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------------ what is refused, and the exit code

TOO_MUCH = DIGITS.read_text().replace("minimum = 6", "minimum = 60")
SCENARIO = """
zones = { east = { devices = 2 } }
tasks = [{ task = "digits", model = "linear", data = "digits", rounds = { demand = 1, minimum = 1 } }]
"""
COMMANDS = [
    ("no file", ["submit", "none.toml", "--bootstrap", "x:1"], USAGE, "cannot read none.toml: No such file"),
    ("a folder", ["submit", ".", "--bootstrap", "x:1"], USAGE, r"cannot read \.: Is a directory"),
    ("no TOML", ["submit", "bad.toml", "--bootstrap", "x:1"], USAGE, r"bad\.toml is not TOML: .*line 1"),
    ("not UTF-8", ["submit", "bytes.toml", "--bootstrap", "x:1"], USAGE, r"bytes\.toml is not TOML"),
    ("a stranger", ["submit", "stranger.toml", "--bootstrap", "x:1"], USAGE, "rounds.demnd is not a setting; known"),
    ("a wrong type", ["submit", "type.toml", "--bootstrap", "x:1"], USAGE, "type.toml: rounds.demand: expected a whole number, got text"),
    ("too much", ["submit", "much.toml", "--bootstrap", "x:1"], USAGE, r"rounds\.minimum \(60\) is more than"),
    ("a bad name", ["submit", "name.toml", "--bootstrap", "x:1"], USAGE, "name.toml: task: expected 1 to 63 of a-z, 0-9 and '-'"),
    ("a bad file is seen before anything starts", ["up", "--task", "bad.toml"], USAGE, r"bad\.toml is not TOML"),
    ("a bad namespace", ["status", "--namespace", "No.Good"], USAGE, "namespace 'No.Good': use 1 to 63 of a-z"),
    ("a bad zone", ["run", "zone", "--zone", "A_b"], USAGE, "zone 'A_b': use"),
    ("the globe is no zone", ["fleet", "--zone", "global", "--count", "1"], USAGE, "not 'global'"),
    ("an empty zone", ["run", "global", "--zones", "east,,west"], USAGE, "zone '': use"),
    ("a zone twice", ["up", "--zones", "east,west,east"], USAGE, "zone east is named more than once"),
    ("no such command", ["dance"], USAGE, "No such command 'dance'"),
    ("no such option", ["up", "--moon"], USAGE, "No such option: --moon"),
    ("no number", ["fleet", "--zone", "east", "--count", "many"], USAGE, "'--count': .*valid integer"),
    ("too small a number", ["fleet", "--zone", "east", "--count", "0"], USAGE, "'--count'"),
    ("too large a seed", ["simulate", "any.toml", "--seed", str(2**64)], USAGE, "'--seed': .*less than or equal to 9223372036854775807"),
    ("too large a port", ["broker", "start", "--port", "70000"], USAGE, "'--port'"),
    ("runs cannot be kept there", ["up", "--memory", "--runs", "bad.toml"], USAGE, "cannot make bad.toml/.*: Not a directory"),
    ("nor a result", ["simulate", "scenario.toml", "--out", "none/x.json"], USAGE, "cannot use none/x.json: No such file"),
    ("nor a broker's log", ["broker", "start", "--folder", "bad.toml"], USAGE, "cannot use .*bad.toml: File exists"),
    ("no scenario", ["simulate", "stranger.toml"], USAGE, "task is not a setting; known here: zones, tasks, devices"),
    ("no broker is known", ["status"], NO_BROKER, "no broker is known: set KAFKA_BOOTSTRAP_SERVERS, pass --bootstrap"),
    ("nor to submit to", ["submit", str(DIGITS)], NO_BROKER, "no broker is known"),
    ("nor for a role", ["run", "evaluator"], NO_BROKER, "no broker is known"),
    ("a round below 1", ["verify", "toy", "0", "--zone", "east"], USAGE, "'ROUND'"),
    ("no zone to verify in", ["verify", "toy", "1"], USAGE, "Missing option '--zone'"),
    ("a bad zone to explain", ["explain", "toy", "1", "--zone", "A_b"], USAGE, "zone 'A_b': use"),
    ("a bad task to verify", ["verify", "My.Toy", "1", "--zone", "east"], USAGE, "task 'My.Toy': use"),
    ("no reason to abandon", ["abandon", "toy", "--zone", "east"], USAGE, "Missing option '--reason'"),
    ("nor to verify at", ["verify", "toy", "1", "--zone", "east"], NO_BROKER, "no broker is known"),
    ("nobody there to ask", ["abandon", "toy", "--zone", "east", "--reason", "x", "--bootstrap", "127.0.0.1:1"], NO_BROKER, "no Kafka broker"),
    ("no kind of model file", ["export", "toy", "model.onnx"], USAGE, "model.onnx: a model's file ends in .npz, .pt, .pth"),
    ("no folder for a model", ["export", "toy", "none/model.npz"], USAGE, "there is no folder none for the model"),
    ("another task's file", ["export", "toy", "model.npz", "--task-file", str(DIGITS)], USAGE, "is of task digits, and toy is asked for"),
    ("no epoch of that kind", ["export", "toy", "model.npz", "--epoch", "-1"], USAGE, "'--epoch'"),
    ("one epoch or all", ["export", "toy", "model.npz", "--epoch", "1", "-f"], USAGE, "--epoch names one model, --follow takes all that come"),
    ("no broker to export from", ["export", "toy", "model.npz"], NO_BROKER, "no broker is known"),
    ("no state dict", ["submit", str(DIGITS), "--from", "much.toml", "--bootstrap", "x:1"], USAGE, "cannot read a model from much.toml"),
    ("nobody there", ["status", "--bootstrap", "127.0.0.1:1"], NO_BROKER, r"no Kafka broker answers at 127.0.0.1:1 \(nobody listens at 127.0.0.1:1\): start one there .*broker start"),
    ("for a role", ["run", "zone", "--zone", "east", "--bootstrap", "127.0.0.1:1"], NO_BROKER, "no Kafka broker answers"),
    ("for a tail", ["tail", "global.ledger", "-f", "--bootstrap", "127.0.0.1:1"], NO_BROKER, "no Kafka broker answers"),
    ("no secret", ["gateway", "--zone", "east", "--secret", "none"], USAGE, "cannot read none: No such file or directory; make one: head -c 32"),
    ("no place to listen", ["gateway", "--zone", "east", "--secret", "much.toml", "--listen", "8080"], USAGE, "--listen 8080: write HOST:PORT"),
    ("no such check", ["gateway", "--zone", "east", "--secret", "much.toml", "--check", "mine"], USAGE, "--check mine: no such check is known; known: .*--load the file"),
    ("no broker for a gateway", ["gateway", "--zone", "east", "--secret", "much.toml"], NO_BROKER, "no broker is known"),
    ("no device", ["token", "a b", "--secret", "much.toml"], USAGE, "a device's ID has 1 to 200"),
    ("no gateway", ["phone", "here:80", "--zone", "east", "--token", "x"], USAGE, "begins with http://"),
    ("no ability", ["phone", "http://here:80", "--zone", "east", "--token", "x", "--ability", "legs=2"], USAGE, "--ability legs=2: write NAME=AMOUNT, as in memory=800"),
    ("a port that is none", ["status", "--bootstrap", "here:there"], USAGE, "--bootstrap here:there: write HOST:PORT"),
    ("no host", ["watch", "--bootstrap", "a:1,:9092"], USAGE, "write HOST:PORT"),
    ("a weight of nothing", ["tenant", "set", "acme", "--weight", "0"], USAGE, "--weight 0: above 0"),
    ("a bad tenant", ["tenant", "set", "A.b", "--weight", "1"], USAGE, "tenant 'A.b': use 1 to 63"),
    ("no terminal", ["watch", "--bootstrap", "127.0.0.1:1"], USAGE, "here is none: `olearning status` prints the same once"),
    ("nothing to watch", ["watch"], NO_BROKER, "no broker is known"),
    ("for a plane", ["up", "--bootstrap", "127.0.0.1:1"], NO_BROKER, "no Kafka broker answers"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "says"), [c[1:] for c in COMMANDS], ids=[c[0] for c in COMMANDS])
def test_it_ends_in_words(
    words: list[str], code: int, says: str, machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (machine / "bad.toml").write_text("task: digits\n")
    (machine / "bytes.toml").write_bytes(b"task = '\xff'\n")
    (machine / "stranger.toml").write_text(DIGITS.read_text().replace("demand =", "demnd ="))
    (machine / "type.toml").write_text(DIGITS.read_text().replace("demand = 10 ", "demand = 'ten' "))
    (machine / "much.toml").write_text(TOO_MUCH)
    (machine / "name.toml").write_text(DIGITS.read_text().replace('task = "digits"', 'task = "my.digits"'))
    (machine / "scenario.toml").write_text(SCENARIO)
    began = time.monotonic()
    assert outcome(words) == code
    said = capsys.readouterr().err
    assert re.search(says, " ".join(said.split())), said
    assert "Traceback" not in said
    assert time.monotonic() - began < 5


def test_a_log_level_that_is_none_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("OLEARNING_LOG_LEVEL", "loud")
    logs.set_up()  # before it is known where the word comes from
    assert outcome(["status"]) == USAGE
    assert "--log-level" in capsys.readouterr().err


def test_an_unknown_model_is_refused_with_those_that_are_known(machine: Path, capsys) -> None:
    (machine / "t.toml").write_text(DIGITS.read_text().replace('"mlp"', '"gpt"'))
    assert outcome(["submit", "t.toml", "--bootstrap", "127.0.0.1:1"]) == USAGE
    assert re.search(r"t\.toml: .*gpt.*mlp.*--load its file", capsys.readouterr().err)


def test_the_task_of_the_demo_is_good() -> None:
    assert parse_task(DIGITS).task == "digits"


@pytest.mark.parametrize(
    ("heavy", "says"),
    [
        ("torch", r"torch is not installed.*olearning\[train\]"),
        ("aiohttp", r"aiohttp is not installed.*speak HTTP by it: install olearning\[gateway\]"),
        ("", ""),
    ],
)
def test_what_is_not_installed_is_named(heavy: str, says: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def lacks(file: Path) -> None:
        raise ModuleNotFoundError(f"No module named {heavy!r}", name=heavy)

    monkeypatch.setattr("olearning.tasks.parse_task", lacks)
    if heavy:
        assert outcome(["up", "--task", "x.toml"]) == FAILED
        assert re.search(says, capsys.readouterr().err)
    else:  # a bug of ours is not hidden
        with pytest.raises(ModuleNotFoundError):
            outcome(["up", "--task", "x.toml"])


def test_help_tells_the_exit_codes_and_the_version(capsys) -> None:
    assert outcome(["--help"]) == OK
    said = " ".join(capsys.readouterr().out.split())
    assert "0 done, 1 failed, 2 wrong usage or a bad file, 3 no broker, 130 interrupted" in said
    assert outcome(["--version"]) == OK
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", capsys.readouterr().out)


def commands(typer: Any = app, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command, as it is typed; a group that does something by itself is one, too."""
    for c in typer.registered_commands:
        yield (*prefix, c.name or c.callback.__name__.replace("_", "-").split("-")[-1])
    for g in typer.registered_groups:
        called = g.typer_instance.registered_callback
        if called and called.invoke_without_command:
            yield (*prefix, g.name)
        yield from commands(g.typer_instance, (*prefix, g.name))


ACTS = """
    run global, run zone, run aggregator, run scheduler, run evaluator, run modules, fleet, gateway, token, phone, up, demo, watch, monitor, experiment,
    submit, update, pause, resume, stop, abandon, task keep, task end-round, tenant set, sharing set,
    data convert, modular train, broker start, broker stop
"""
"""They do something and say in a line what came of it, or go on until one ends them."""


def test_every_command_says_what_it_is_for_and_every_listing_has_json(capsys) -> None:
    all_ = list(commands())
    assert ("run", "aggregator") in all_
    assert ("sharing",) in all_
    acts = {tuple(words.split()) for words in ACTS.split(",")}
    assert acts <= set(all_)
    for words in all_:
        assert outcome([*words, "--help"]) == OK, words
        said = capsys.readouterr().out
        assert "Usage: " in said
        assert ("--json" in said) is (words not in acts), f"{words}: a listing has --json, and what acts is in ACTS"


def test_the_exit_codes_are_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "terminal.md").read_text()
    for code in (OK, FAILED, USAGE, NO_BROKER, INTERRUPTED, TERMINATED):
        assert re.search(rf"^\| {code} \|", page, re.MULTILINE), code


# ------------------------------------------------------------------ what the shell completes


def completed(line: str, monkeypatch: pytest.MonkeyPatch, capsys) -> list[str]:
    """What bash is given for a line that ends where the cursor is."""
    words = line.split(" ")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    monkeypatch.setenv("_OLEARNING_COMPLETE", "complete_bash")
    with pytest.raises(SystemExit, match="0"):
        outcome([])
    return capsys.readouterr().out.split()


def test_names_that_were_seen_are_completed_without_a_broker(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def shell(line: str) -> list[str]:
        return completed(line, monkeypatch, capsys)

    assert shell("olearning wa") == ["watch"]
    assert shell("olearning pause ") == []
    _, view = finished()
    remember(view)
    there = f"--namespace {view.namespace}"
    assert shell(f"olearning pause {there} ") == ["toy"]
    assert shell(f"olearning verify toy 1 {there} --zone ") == ["east", "west"]
    assert shell(f"olearning tail {there} west.del") == ["west.deltas.toy"]
    assert shell(f"olearning tenant set {there} d") == ["default"]
    assert shell("olearning tasks --namespace te") == [view.namespace]
    assert shell("olearning pause ") == []  # of another namespace
    assert shell("olearning sharing set srs") == ["srsf"]
    assert shell("olearning experiment abl --out x") == []
    assert shell("olearning experiment abl") == ["ablation", "ablation-choice"]


@pytest.mark.parametrize("spoiled", ["[]", "{", "\xff", '{"olearning": 5}'])
def test_names_that_cannot_be_read_are_none(
    spoiled: str, machine: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    file = machine / "state" / "olearning" / "names.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(spoiled.encode("latin-1"))
    assert completed("olearning pause ", monkeypatch, capsys) == []


def test_ctrl_c_says_so(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("olearning.commands.broker.start_detached", interrupted)
    assert outcome(["broker", "start"]) == INTERRUPTED
    assert capsys.readouterr().err.endswith("olearning: interrupted\n")


def test_a_namespace_or_topic_that_is_not_there() -> None:
    there = {"a.global.ledger", "a.east.ledger", "b.global.ledger", "other"}
    must_exist(there, "x:1", "a", "a.east.ledger")
    with pytest.raises(Trouble, match=r"no namespace c at x:1; there: a, b\. To go on: choose one with --namespace$"):
        must_exist(there, "x:1", "c", "c.global.ledger")
    with pytest.raises(Trouble, match=r"there: none\. To go on: start a plane"):
        must_exist(set(), "x:1", "c", "c.global.ledger")
    with pytest.raises(Trouble, match=r"no topic a\.moon; there: east\.ledger, global\.ledger$"):
        must_exist(there, "x:1", "a", "a.moon")
    with pytest.raises(Trouble, match=r"no zone moon in namespace a; there: east$"):
        must_exist(there, "x:1", "a", "a.moon.ledger")
    with pytest.raises(Trouble, match=r"no topic a\.east\.ledgr; there: east\.ledger"):
        must_exist(there, "x:1", "a", "a.east.ledgr")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    env = os.environ | {"PYTHONUNBUFFERED": ""}
    command = [sys.executable, "-m", "olearning", "up", "--memory", "--devices", "0", "--no-evaluator"]
    up = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    assert up.stdout
    assert up.stderr
    assert up.stdout.readline().startswith(b"log: in memory, as asked")
    up.stdout.close()
    assert up.wait(20) == OK
    assert up.stderr.read() == b""
    up.stderr.close()


def test_a_plane_in_memory_names_no_logs_and_leaves_no_empty_folder(tmp_path: Path) -> None:
    words = ["up", "--memory", "--devices", "0", "--no-evaluator", "--runs", str(tmp_path)]
    command = [sys.executable, "-m", "olearning", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as up:
        assert up.stdout
        up.stdout.readline()
        assert re.fullmatch(r"plane: \d+ roles, namespace olearning; Ctrl-C ends it\n", up.stdout.readline())
        up.terminate()
    assert up.returncode == OK
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ which broker


class Local:
    """A broker that is only said to run."""

    bootstrap = "local:1"

    def __init__(self, folder: Path, fails: str = ""):
        self.folder, self.fails, self.stopped = folder, fails, False

    def start(self) -> str:
        if self.fails:
            raise BrokerError(self.fails)
        return self.bootstrap

    def stop(self) -> None:
        self.stopped = True


class Contained(Local):
    bootstrap, image = "docker:1", "an-image"


def running(monkeypatch: pytest.MonkeyPatch, bootstrap: str) -> None:
    monkeypatch.setattr(connect, "status", lambda folder: {"bootstrap": bootstrap} if folder == broker_folder() else {})


def test_the_broker_is_chosen_in_this_order_and_said_aloud(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(connect, "LocalBroker", lambda folder: Local(folder, "no java found: install"))
    monkeypatch.setenv("PATH", str(machine))
    with choose(machine, said.append) as none:
        assert none.bootstrap == ""
    assert said[1] == "broker: not a local one. no java found: install"
    assert re.match("broker: Apache Kafka in Docker.* from apache/kafka:", said[2])
    assert said[3] == "broker: none. no docker found: install Docker"
    assert re.match("WARNING: going on with the log in memory.*Nothing survives.*killing a role is only simulated", said[4])  # fmt: skip

    with monkeypatch.context() as docker:
        docker.setattr(connect, "DockerBroker", Contained)
        with choose(machine, said.append) as contained:
            assert contained.bootstrap == "docker:1"
            assert isinstance(contained.local, Contained)
        assert contained.local.stopped
    assert (
        said[-1]
        == "broker: Apache Kafka in Docker, started for this run from an-image (the first time, Docker pulls it)"
    )

    monkeypatch.setattr(connect, "LocalBroker", Local)
    with choose(machine, said.append) as own:
        assert own.bootstrap == "local:1"
        assert isinstance(own.local, Local)
        assert not own.local.stopped
    assert own.local.stopped

    running(monkeypatch, "stays:1")
    with choose(machine, said.append) as stays:
        assert (stays.bootstrap, stays.local) == ("stays:1", None)
    assert said[-1] == "broker: the local one that runs already, at stays:1"

    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "env:1")
    assert choose(machine, said.append).bootstrap == "env:1"
    assert choose(machine, said.append, "named:1").bootstrap == "named:1"
    assert said[-1] == "broker: yours, at named:1"


def test_addresses() -> None:
    assert [address(x) for x in ("h:80", "[::1]:80", ":80")] == [("h", 80), ("::1", 80), ("", 80)]
    assert {address(x) for x in ("h", "h:", "h:x", "h:70000", "")} == {None}
    for good in ("h", "h:1", "[::1]", "[::1]:1", "h:1,i:2, j"):
        assert find(good) == good


def test_commands_find_the_broker_of_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Trouble, match="no broker is known"):
        find()
    running(monkeypatch, "stays:1")
    assert find() == "stays:1"
    with Noted("one:1", "a"), Noted("two:1", "b"):
        assert find() == "two:1"  # the newest
        assert find(namespace="a") == "one:1"
        assert find(namespace="b") == "two:1"
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "env:1")
        assert find(namespace="a") == "env:1"
        assert find("named:1", "a") == "named:1"
        monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS")
    assert find() == "stays:1"
    assert planes() == []


def test_a_log_in_memory_is_not_noted() -> None:
    with Noted("", "a"):
        assert planes() == []


def test_the_note_of_a_killed_plane_counts_for_nothing(machine: Path) -> None:
    code = (
        "import sys, time; from olearning.connect import Noted\n"
        "with Noted('dead:1', 'a'): print('noted', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as plane:
        assert plane.stdout
        assert plane.stdout.readline() == b"noted\n"
        assert [n["bootstrap"] for n in planes()] == ["dead:1"]
        with pytest.raises(Trouble, match=rf"namespace a is up at dead:1 already, process {plane.pid}"):
            refuse_twice("a", "dead:1")
        refuse_twice("b", "dead:1")
        refuse_twice("a", "elsewhere:1")
        plane.kill()
    assert planes() == []
    assert list(machine.rglob("*.json")) == []  # and is removed


def test_where_nothing_can_be_noted_the_plane_runs_all_the_same(machine: Path) -> None:
    (machine / "state").write_text("no folder")
    with Noted("x:1", "a"):
        assert planes() == []


# ------------------------------------------------------------------ a broker that goes away


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


class Flaky:
    """Whether somebody listens, as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.up = True
        monkeypatch.setattr(connect, "LOOK", 0.01)
        monkeypatch.setattr(connect, "listens", self.listens)

    async def listens(self, bootstrap: str) -> bool:
        return self.up


def test_a_broker_that_goes_and_comes_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky, said = Flaky(monkeypatch), []

    async def work() -> str:
        flaky.up = False
        await until(lambda: said)
        flaky.up = True
        await until(lambda: len(said) == 2)
        return "done"

    assert asyncio.run(attended(work(), Broker("x:1"), said.append)) == "done"
    assert said == [
        "the broker at x:1 does not answer; waiting for it to come back",
        "the broker is back; everything goes on where it was",
    ]


def test_who_only_looks_gives_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky, ended = Flaky(monkeypatch), []
    flaky.up = False

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    with pytest.raises(Trouble, match=r"stayed away for 0\.05 s") as e:
        asyncio.run(attended(work(), Broker("x:1"), lambda text: None, patience=0.05))
    assert e.value.code == NO_BROKER
    assert ended


def test_a_broker_of_ours_is_started_again(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flaky, said, local = Flaky(monkeypatch), [], Local(machine, "no room on the disk")

    def start() -> str:
        if len(said) < 2:
            raise BrokerError(local.fails)
        flaky.up = True
        return local.bootstrap

    local.start = start  # type: ignore[method-assign]

    async def work() -> None:
        flaky.up = False
        await until(lambda: len(said) == 3)

    asyncio.run(attended(work(), Broker("x:1", local), said.append))  # type: ignore[arg-type]
    assert said[0].startswith("the broker at x:1 is gone; it is started again")
    assert said[1] == "it does not start: no room on the disk"
    assert said[2].startswith("the broker is back")


def test_an_event_loop_that_stands_still_does_not_take_the_broker_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker of ours would be started again for it."""
    monkeypatch.setattr(connect, "ANSWER", 0.2)

    async def stalls(address: str) -> bool:
        asked = asyncio.create_task(connect.listens(address))
        await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251
        return await asked

    with socket.create_server(("127.0.0.1", 0)) as there:
        address = f"127.0.0.1:{there.getsockname()[1]}"
        assert asyncio.run(stalls(address))
    assert not asyncio.run(stalls(address)), "nobody listens any more"


def test_somebody_listens_or_not() -> None:
    async def look() -> tuple[bool, bool, bool]:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        there = await connect.listens(f"127.0.0.1:1,127.0.0.1:{port}")
        server.close()
        await server.wait_closed()
        return there, await connect.listens(f"127.0.0.1:{port}"), await connect.listens("a-name-alone")

    assert asyncio.run(look()) == (True, False, True)


# ------------------------------------------------------------------ planes


def test_a_shape_is_checked_and_makes_its_roles() -> None:
    with pytest.raises(BadName):
        Shape("No.Good")
    with pytest.raises(BadName):
        Shape("good", ("east", "b_d"))
    with pytest.raises(BadName, match="more than once"):
        Shape("good", ("east", "east"))
    shape = Shape("good", ("east", "west"), 3, 5, apart_h=4.0)
    assert [r.name for r in shape.plane()] == [
        "global", "zone-east", *(f"aggregator-east-{n}" for n in range(3)),
        "zone-west", *(f"aggregator-west-{n}" for n in range(3)), "scheduler", "evaluator",
    ]  # fmt: skip
    east, west = shape.fleets(7)
    assert (east.options["first"], west.options["first"]) == ("0", "5")
    assert (east.options["utc-offset"], west.options["utc-offset"]) == ("0.0", "-4.0")
    assert Shape("good").fleets() == []
    command = east.command("x:1")
    assert command[1:4] == ["-m", "olearning", "fleet"]
    assert command[command.index("--bootstrap") + 1] == "x:1"


def test_a_role_gets_its_settings_on_the_command_line_and_in_memory() -> None:
    given = {"patience": "500", "partitions": "4"}
    scheduler = Role("scheduler", "s", "good", options=given)
    assert scheduler.command("x:1")[2:5] == ["olearning", "run", "scheduler"]
    built: Any = scheduler.build("1")
    assert built.patience == 500
    for start in Start:
        aggregator: Any = Role("aggregator", "a", "good", "east", {"start": start.value}).build("1")
        assert aggregator.order.task_oriented is (start is Start.COMPLETE)


def test_what_a_tenant_submits_has_the_tenant_s_client_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a broker's quotas can be set by tenant; it must be the same each time."""
    seen: list[str] = []

    class Gone:
        def __init__(self, bootstrap: str, client_id: str, *more: Any):
            seen.append(client_id)

        async def __aenter__(self) -> Any:
            raise BrokerGone("no Kafka broker answers")

        async def __aexit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("olearning.hosting.Kafka", Gone)
    for _ in range(2):
        assert outcome(["submit", str(DIGITS), "--bootstrap", "x:1"]) == NO_BROKER
    assert seen == ["tenant-demo"] * 2
    probe: Any = SimpleNamespace(name="look")
    with pytest.raises(BrokerGone):
        visit("good", "x:1", probe, patience=None)
    assert seen[-1] == "look"


def test_every_run_has_a_folder_of_its_own(machine: Path) -> None:
    folders = {run_folder(machine / "runs") for _ in range(5)}
    assert len(folders) == 5
    assert all(f.is_dir() and f.is_absolute() for f in folders)
    (machine / "file").touch()
    with pytest.raises(Trouble, match=r"cannot make .*: Not a directory") as e:
        run_folder(machine / "file")
    assert e.value.code == USAGE


def test_pauses_grow_while_a_role_keeps_ending() -> None:
    pauses = [1.0]
    for _ in range(7):
        pauses.append(next_pause(pauses[-1], lived=0.1, least=2.0))
    assert pauses[1:] == [2, 4, 8, 16, 30, 30, 30]
    assert next_pause(30, lived=100, least=2.0) == 2


def test_the_last_words_of_a_role(machine: Path) -> None:
    log = machine / "role.log"
    assert last_words(log) == ""
    log.write_text("x" * 10_000 + "\nolearning: zone-east stopped: records are lost\n\n")
    assert last_words(log) == "zone-east stopped: records are lost"
    log.write_text("")
    assert last_words(log) == ""


@pytest.mark.program
def test_in_memory_a_killed_role_is_replaced_and_comes_back() -> None:
    said: list[str] = []
    shape = Shape("tiny", ("east",), aggregators=2, evaluator=False, partitions=4)
    both = {"aggregator-east-0", "aggregator-east-1"}

    async def run() -> tuple[set[str], set[str], set[str]]:
        plane, view = InMemory(said.append, pause=4.0, step=0.005), View("tiny")
        try:
            await plane.start(shape.plane())
            watching = asyncio.create_task(plane.host(lambda life: view))

            def holders() -> set[str]:
                zone = view.zones.get("east")
                return {h.holder for h in zone.shards} if zone else set()

            await until(lambda: holders() == both, 10)
            before = holders()
            plane.kill("aggregator-east-0")
            plane.kill("aggregator-east-0")  # dead already: nothing
            await until(lambda: len(holders()) == 1, 10)
            after = holders()
            await until(lambda: holders() == both, 10)
            watching.cancel()
            return before, after, holders()
        finally:
            await plane.stop()

    before, after, then = asyncio.run(run())
    assert before == then == both
    assert after == {"aggregator-east-1"}
    assert said == ["aggregator-east-0 ended (killed, in this simulation); it starts again in 4 s"]


# ------------------------------------------------------------------ the demo's verdict


@pytest.mark.parametrize(
    ("accuracy", "ended", "code", "word"),
    [
        ({0: 0.1, 2: 0.9}, True, OK, "reached"),
        ({0: 0.1, 2: 0.85}, True, OK, "reached"),
        ({0: 0.1, 2: 0.849}, True, FAILED, "MISSED"),
        ({0: 0.1, 1: 0.9, 2: 0.5}, True, FAILED, "MISSED"),  # the last one counts
        ({0: 0.1, 2: 0.9}, False, FAILED, "MISSED"),  # good, but it did not come to its end
        ({}, True, FAILED, "MISSED"),
        (None, False, FAILED, "MISSED"),
    ],
)
def test_the_demo_fails_unless_the_goal_is_reached(
    accuracy: dict[int, float] | None, ended: bool, code: int, word: str, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    monkeypatch.setattr(olearning.demo, "central_accuracy", lambda spec, seed: 0.95)
    monkeypatch.setattr("olearning.plots.accuracy", lambda *a: None)
    monkeypatch.setattr("olearning.plots.traffic", lambda *a: None)
    with (machine / "out").open("w") as out:
        demo = Demo(Shape("d"), machine / "run", Console(file=out), live=False)
        tasks = () if accuracy is None else (TaskView("digits", "demo", "ended", 2, 2, {}, accuracy),)
        demo.view = SimpleNamespace(now=1, snapshot=lambda now: Snapshot(1, "d", True, "g", 1, tasks, (), {}, {}))  # type: ignore[assignment]
        assert asyncio.run(demo._account(ended, 12.0)) == code
    said = (machine / "out").read_text()
    assert f"goal 0.85: {word}" in said
    notes = [json.loads(x)["text"] for x in (machine / "run" / "metrics.jsonl").read_text().splitlines() if "note" in x]
    assert any("held-out accuracy" in n for n in notes)
    assert (machine / "run" / "report.md").exists()
