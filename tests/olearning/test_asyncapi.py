"""The document and the page of the topics: valid, current, true of the bytes that travel, and of who writes and reads."""

import copy
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from olearning.asyncapi import ROLES, asyncapi, carried
from olearning.cli import outcome
from olearning.errors import OK, USAGE
from olearning.export import Export
from olearning.meanings import WORDS, meaning, reachable
from olearning.topics import document, page
from processors.evaluator import Evaluator
from schemas.topics import COMMAND, GLOBAL, TABLE, parse
from streams.memory import Host, Memory
from streams.processor import Effect, Fetch, Follow, Send
from tests.plane import NS, Plane, spec
from tests.schemas.golden import BY_TAG

DOCS = Path(__file__).parents[2] / "docs"
SPECIFICATION = json.loads(Path(__file__).with_name("asyncapi-3.0.0.json").read_text())


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return asyncapi()


def test_what_is_committed_is_current() -> None:
    for file, text in (("asyncapi.json", document()), ("topics.md", page())):
        assert (DOCS / file).read_text() == text.rstrip("\n") + "\n", f"docs/{file} is old: run `make topics`"


# ------------------------------------------------------------------ valid


def objections(made: dict[str, Any]) -> list[str]:
    return [e.message for e in jsonschema.Draft7Validator(SPECIFICATION).iter_errors(made)]


def test_it_is_valid_asyncapi_3(made: dict[str, Any]) -> None:
    assert objections(made) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d["operations"]["fleet-writes-deltas"].update(action="publish"),
        lambda d: d["channels"]["ledger"].update(adress="x"),
        lambda d: d["channels"]["ledger"]["bindings"]["kafka"].update(partitions="many"),
        lambda d: d.pop("info"),
    ],
)
def test_control_what_is_not_valid_is_seen(made: dict[str, Any], spoil: Any) -> None:
    spoiled = copy.deepcopy(made)
    spoil(spoiled)
    assert objections(spoiled)


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


def test_every_reference_leads_somewhere_and_every_topic_is_there(made: dict[str, Any]) -> None:
    for ref in references(made):
        node = made
        for step in ref.removeprefix("#/").split("/"):
            node = node[step]
    assert list(made["channels"]) == [k.what for k in TABLE]
    assert set(made["components"]["messages"]) == set(BY_TAG)
    for kind in TABLE:
        address = made["channels"][kind.what]["address"]
        name = address.format(namespace="demo", zone=GLOBAL if kind.scopes == (GLOBAL,) else "asia", task="wine")
        assert parse(name).kind is kind


# ------------------------------------------------------------------ true of what travels


def plain(value: Any) -> Any:
    """As JSON has it: keys of maps are text."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def test_messages_are_as_their_schemas_say_and_say_what_each_field_means(made: dict[str, Any]) -> None:
    for name, message in BY_TAG.items():
        schema = made["components"]["messages"][name]["payload"] | {"components": made["components"]}
        check = jsonschema.Draft7Validator(schema)
        tree = plain(msgspec.to_builtins(message))
        assert [e.message for e in check.iter_errors(tree)] == [], name
        field = next(f for f in type(message).__struct_fields__ if getattr(message, f) is not None)
        assert list(check.iter_errors(tree | {field: {"no": [None]}})), f"{name}.{field} could be anything"


def test_every_field_has_a_meaning_and_every_word_is_of_use() -> None:
    used = set()
    for kind in reachable(carried()):
        for f in msgspec.structs.fields(kind):
            used.add(f.name)
            try:
                meaning(kind, f.name)
            except KeyError:
                pytest.fail(
                    f"nobody says what {kind.__name__}.{f.name} is: give it a docstring, or olearning/meanings.py a word"
                )
    assert WORDS.keys() <= used


# ------------------------------------------------------------------ who writes, who reads


class Watched(Memory):
    """Notes which role writes and reads which topic."""

    def __init__(self, **more: Any):
        super().__init__(**more)
        self.wrote: dict[str, set[str]] = defaultdict(set)
        self.read: dict[str, set[str]] = defaultdict(set)

    def _do(self, host: Host, effect: Effect) -> None:
        role = type(host.processor).__name__.removesuffix("Coordinator").lower()
        role = role if role in ROLES else COMMAND
        match effect:
            case Send(topic=name):
                self.wrote[parse(name).kind.what].add(role)
            case Follow(topic=name) | Fetch(topic=name):
                self.read[parse(name).kind.what].add(role)
        super()._do(host, effect)


def run() -> Watched:
    """A task from end to end, with garbage on every topic, an aggregator that is killed in the middle, and roles that start late."""
    memory = Watched(seed=5)
    plane = Plane(memory, every=40, scheduler=True)
    plane.host("evaluator", lambda life: Evaluator(NS, "evaluator", life, lambda *_: (0.5, 1.0, 10)))
    for name in list(memory.topics):
        memory.append(Send(name, b"\xff garbage", key="east-0", partition=0))
    plane.submit(spec(epochs=2, rounds=2))
    killed = plane.hosts["agg-east-0"]
    assert memory.run(lambda: killed.handled > 60, 60_000)
    killed.crash()
    assert memory.run(lambda: plane.ended("toy"), 120_000)
    for role in ("evaluator", "global", "scheduler", "zone-east"):
        plane.hosts[role].crash()
        plane.hosts[role].restart()
    killed.restart()
    memory.host(lambda life: Export(NS, "toy", lambda *_: None))
    memory.run(limit=5_000)
    return memory


ELSEWHERE = {
    "tenants": {COMMAND},  # `olearning tenant set`
    "ledger": {COMMAND, "modules"},  # `abandon`; no task is modular
    "profiles": {"fleet", "modules"},
    "submodels": {"modules"},
    "checkpoints": {
        "global",
        "zone",
        "aggregator",
        "scheduler",
        "evaluator",
        "modules",
        COMMAND,
    },  # who starts after a ledger was cut
    "tasks": {"evaluator"},  # if a task ended while it was away
    "announcements": {COMMAND},  # `prune --topics`
    "evaluations": {COMMAND},
    "checkins": {"zone"},  # under another policy than `reward`
    "credits": {"scheduler"},  # when more arrives than is aggregated
    "metrics": {"zone"},  # a merge that fails
    "dead-letters": {"aggregator", "modules"},
}
"""Roles that this run does not bring to it."""


def test_roles_write_and_read_what_the_table_says() -> None:
    seen = run()
    for kind in TABLE:
        for declared, found in ((kind.writers, seen.wrote[kind.what]), (kind.readers, seen.read[kind.what])):
            assert found <= set(declared), f"{kind.what}: the table does not say so"
            assert set(declared) - found <= ELSEWHERE.get(kind.what, set()), (
                f"{kind.what}: the table says more than is so"
            )


# ------------------------------------------------------------------ the command


def test_the_command_shows_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert outcome(["topics"]) == OK
    assert "<zone>.deltas.<task>" in capsys.readouterr().out
    assert outcome(["topics", "--json"]) == OK
    rows = json.loads(capsys.readouterr().out)
    assert [r["topic"].split(".")[2] for r in rows] == [k.what for k in TABLE]
    assert outcome(["topics", "--asyncapi"]) == OK
    assert json.loads(capsys.readouterr().out) == asyncapi()
    assert outcome(["topics", "--json", "--markdown"]) == USAGE
