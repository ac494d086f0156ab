"""Metrics, health and log lines: what roles show is what their state says, and what the list says."""

import asyncio
import inspect
import json
import logging
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from device_sim.gateway import Gateway
from olearning import cli
from olearning.errors import NO_BROKER, Trouble
from olearning.telemetry import exporter as exporters
from olearning.telemetry import logs
from olearning.telemetry import metrics as m
from olearning.telemetry.exporter import Exporter, watched
from olearning.telemetry.sources import samples_of, unready
from processors.aggregator import Aggregator
from schemas.facts import Committed, Counts, Stretch
from schemas.sharing import SHARING, Quota, Sharing, Tenant
from schemas.topics import GLOBAL, topic
from streams.memory import Memory
from streams.processor import Send, send
from tests.olearning.watched import watch
from tests.plane import NS, Plane, spec

ROOT = Path(__file__).parents[2]
STAYS = ("fleet", "gateway", "up", "monitor")
KINDS = {"scheduler": "scheduler", "global": "global", "zone": "zone", "agg": "aggregator", "fleet": "fleet"}


def get(port: int | None, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


class Shown:
    """A plane in memory behind an exporter, and the lines that its roles would log."""

    def __init__(self, plane: Plane):
        self.plane, self.lines = plane, list[tuple[int, logs.Event]]()
        self.view = watch(plane)
        self.all = [
            watched(KINDS[name.split("-")[0]], "", host.processor, None, lambda: plane.memory.now)
            for name, host in plane.hosts.items()
        ]
        self.all.append(watched("view", "", self.view, None, lambda: plane.memory.now))
        for host in plane.hosts.values():
            logs.tell(host.processor, lambda level, event: self.lines.append((level, event)))

    async def read(self) -> dict[tuple[str, ...], float]:
        """What `/metrics` says: (name, label values in the list's order...) -> value."""
        async with Exporter(0) as exporter:
            for w in self.all:
                exporter.watch(w)
            status, text = await asyncio.to_thread(get, exporter.port, "/metrics")
            assert status == 200
            assert (await asyncio.to_thread(get, exporter.port, "/readyz"))[0] == 200
        listed = {x.full: x for x in m.METRICS}
        out: dict[tuple[str, ...], float] = {}
        for family in text_string_to_metric_families(text):
            for s in family.samples:
                if s.name.startswith("olearning_"):
                    name = re.sub("_(bucket|sum|count)$", "", s.name) if family.type == "histogram" else s.name
                    metric = listed[name]
                    assert metric.kind == family.type
                    assert set(s.labels) - {"le"} == set(metric.labels)
                    key = (s.name, *(s.labels[x] for x in metric.labels), *filter(None, [s.labels.get("le", "")]))
                    assert key not in out
                    out[key] = s.value
        return out


@pytest.fixture(scope="module")
def shown() -> Shown:
    """In the middle of a task, and a commit of nobody's has come."""
    plane = Plane(Memory(seed=3), scheduler=True)
    shown = Shown(plane)
    tenants = topic(NS, GLOBAL, "tenants")
    plane.memory.append(send(tenants, Sharing("srsf"), SHARING))
    plane.memory.append(send(tenants, Tenant("default", quota=Quota(devices=900)), "default"))
    plane.submit(spec(epochs=1, rounds=50))
    east = plane.hosts["zone-east"].processor
    assert plane.memory.run(lambda: "toy" in east.zone.tasks and east.zone.tasks["toy"].round == 4, 120_000)
    stray = Committed("toy", 1, {0: Stretch(token=0, start=0, end=1)}, Counts(counted=1))
    plane.memory.append(send(topic(NS, "east", "ledger"), stray))
    plane.memory.run(limit=1_000)
    return shown


def test_what_roles_show_is_what_the_ledgers_say(shown):
    found, plane = asyncio.run(shown.read()), shown.plane
    z = plane.zone("east")
    t = z.tasks["toy"]
    assert found["olearning_blocks_total", "east", "toy", "counted"] == t.tally.counts.counted > 0
    assert found["olearning_identity_ok", "east", "toy"] == 1
    assert found["olearning_rounds_opened_total", "east", "toy"] == t.round >= 4
    assert found["olearning_ledger_records_total", "east"] == z.position
    assert found["olearning_leader", "east"] == found["olearning_leader", "global"] == 1
    assert found["olearning_facts_void_total", "east", "committed"] == 1
    facts = [type(f).__name__ for f in plane.facts("east")]
    assert found["olearning_facts_total", "east", "committed"] == facts.count("Committed")
    assert found["olearning_commits_total", "east", "accepted"] == facts.count("Committed")
    assert ("olearning_commits_total", "east", "void") not in found, "the stray commit is no aggregator's own"
    assert found["olearning_rounds_finalised_total", "east", "toy", "model"] == facts.count("Finalised")
    assert found["olearning_round_seconds_count", "east"] == found["olearning_round_seconds_bucket", "east", "+Inf"]
    assert found["olearning_round_seconds_count", "east"] == facts.count("Finalised") > 0
    assert found["olearning_shards_held", "east"] == plane.partitions, "both aggregators together"
    assert sum(found["olearning_devices", "east", s] for s in ("asleep", "idle", "registered", "training")) == 6
    assert found["olearning_tenant_weight", "default"] == 1
    assert found["olearning_sharing_policy_info", "srsf"] == 1
    assert found["olearning_plan_place", "east", "toy", "srsf"] == 1
    assert found["olearning_tenant_quota", "default", "devices"] == 900
    assert ("olearning_tenant_quota", "default", "bytes") not in found, "there is no limit"
    r = t.rounds[t.round]
    assert found["olearning_tenant_rounds_waiting", "east", "default"] == (t.state == "open" and r.met_at is None)
    names = {pseudonym for h in plane.hosts.values() for pseudonym in getattr(h.processor, "names", {}).values()}
    assert names
    assert not names & {label for key in found for label in key}


def test_broken_books_are_seen(shown):
    """The control of `identity_ok`: one offset without an outcome."""
    w = next(w for w in shown.all if w.name == "zone-west")
    ledger = w.processor.reading.ledger
    state, t = ledger.state, ledger.state.tasks["toy"]
    ledger.state = replace(state, tasks={"toy": replace(t, tally=t.tally.plus(offsets=1))})
    try:
        found = asyncio.run(shown.read())
    finally:
        ledger.state = state
    assert found["olearning_identity_ok", "west", "toy"] == 0
    assert found["olearning_identity_ok", "east", "toy"] == 1


def test_roles_log_what_an_operator_wants_to_know(shown):
    """Each happening once, with its zone, task and round, in JSON too; and no device's name."""
    formatter = logs.Json({"role": "zone", "name": "zone-east"})
    lines = []
    for level, event in shown.lines:
        record = logging.LogRecord("olearning.events", level, "", 0, event.text, None, None)
        record.__dict__ |= {"event": event.kind, "fields": {"zone": event.zone, **event.values}}
        lines.append(json.loads(formatter.format(record)))
    opened = [x for x in lines if x["event"] == "round" and x["zone"] == "east" and x["step"] == "opened"]
    assert [x["round"] for x in opened] == list(range(1, len(opened) + 1))
    assert opened[0].keys() >= {"time", "level", "message", "role", "name", "task", "epoch"}
    assert {"closed", "finalised"} <= {x.get("step") for x in lines}
    assert {x["holder"] for x in lines if x["event"] == "leader"} == {"global", "zone-east", "zone-west"}
    assert {x["holder"] for x in lines if x["event"] == "shard"} >= {"agg-east-0", "agg-east-1"}
    (refused,) = [x for x in lines if x["level"] == "warning" and x["zone"] == "east"]
    assert (refused["event"], refused["fact"]) == ("void", "committed")
    text = json.dumps(lines)
    names = [n for h in shown.plane.hosts.values() for n in getattr(h.processor, "names", {}).values()]
    assert not [n for n in names if n in text]


def test_a_commit_that_comes_too_late_is_its_aggregators_own():
    """A zombie's commit under a token that is another's by now: it is counted and logged as refused by who made it."""
    plane = Plane(Memory(seed=3))
    shown = Shown(plane)
    plane.submit(spec(epochs=1, rounds=1))
    first = lambda: any(isinstance(f, Committed) and 0 in f.stretches for f in plane.facts("east"))  # noqa: E731
    assert plane.memory.run(first, 60_000)
    seat = plane.zone("east").shards[0]
    a: Aggregator = plane.hosts[seat.holder].processor
    again = Committed("toy", 1, {0: Stretch(token=seat.token, start=0, end=9)}, Counts(counted=9))
    plane.memory.append(Send(a.ledger_topic.name, send(a.ledger_topic, again).value))
    plane.memory.run(limit=100)
    assert asyncio.run(shown.read())["olearning_commits_total", "east", "void"] == 1
    assert [e.values["step"] for level, e in shown.lines if level == logging.WARNING and "step" in e.values] == [
        "refused"
    ]


def test_a_leader_that_was_put_out_says_so():
    """It stands still past its session, another leads, it wakes."""
    plane = Plane(Memory(seed=3))
    plane.standbys()
    shown = Shown(plane)
    assert plane.memory.run(lambda: plane.zone("east").leader.token > 0, 10_000)
    first = plane.hosts[plane.zone("east").leader.holder]
    first.freeze()
    plane.memory.run(limit=3_000)
    first.thaw()
    plane.memory.run(limit=1_000)
    east = [
        (level, e.values.get("step", ""), e.values["holder"])
        for level, e in shown.lines
        if e.kind == logs.LEADER and e.zone == "east"
    ]
    other = plane.zone("east").leader.holder
    assert sorted(east) == [
        (logging.INFO, "", first.processor.name), (logging.INFO, "", other), (logging.WARNING, "lost", other),
    ]  # fmt: skip
    leads = {k[1:]: v for k, v in asyncio.run(shown.read()).items() if k[0] == "olearning_leader"}
    assert leads == {("east",): 1, ("west",): 1, ("global",): 1}


def test_what_ends_a_role_is_a_line_of_json_too():
    words = [sys.executable, "-m", "olearning", "--log-format", "json", "run", "zone", "--zone", "east"]
    env = os.environ | {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == NO_BROKER
    line = json.loads(done.stderr.splitlines()[-1])
    assert (line["level"], line["event"], line["role"]) == ("error", "trouble", "zone")
    assert "no Kafka broker answers" in line["message"]


def test_what_up_tells_is_json_where_logs_are(tmp_path):
    words = [
        sys.executable,
        "-m",
        "olearning",
        "--log-format",
        "json",
        "up",
        "--memory",
        "--devices",
        "0",
        "--no-evaluator",
    ]
    with subprocess.Popen([*words, "--runs", str(tmp_path)], stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout
        lines = [json.loads(up.stdout.readline())]
        while lines[-1]["event"] != "leader":
            lines.append(json.loads(up.stdout.readline()))
        up.terminate()
        lines += map(json.loads, up.stdout)
    assert up.returncode == 0
    assert {x["role"] for x in lines} == {"up"}
    assert lines[0]["event"] == "up"
    assert lines[0]["message"].startswith("log: in memory, as asked")
    leader = next(x for x in lines if x["event"] == "leader")
    assert (leader["level"], leader["zone"] in leader["message"], bool(leader["holder"])) == ("info", True, True)


def test_health_says_what_stands_still(monkeypatch):
    monkeypatch.setattr(exporters, "STANDS_STILL", 0.3)
    monkeypatch.setattr(exporters, "PATIENCE", 0.2)

    async def asked() -> None:
        async with Exporter(0) as exporter:
            port = exporter.port
            assert (await asyncio.to_thread(get, port, "/nothing"))[0] == 404
            assert (await asyncio.to_thread(get, port, "/healthz"))[0] == 200
            status, why = await asyncio.to_thread(get, port, "/readyz")
            assert (status, json.loads(why)["ok"]) == (503, False)
            with pytest.raises(Trouble, match="choose another --metrics-port"):
                async with Exporter(port):
                    pass
            slow = asyncio.get_running_loop().run_in_executor(
                None, lambda: (time.sleep(0.9), get(port, "/healthz"), get(port, "/metrics"))
            )
            time.sleep(2)  # noqa: ASYNC251  the loop stands still: that is what is to be seen
            _, ill, shown = await slow
            assert ill[0] == 503
            assert "stands still" in ill[1]
            assert shown[0] == 200
            assert float(re.search(r"(?m)^olearning_loop_lag_seconds (.*)$", shown[1])[1]) > 0.3
            await asyncio.sleep(0.6)
            assert (await asyncio.to_thread(get, port, "/healthz"))[0] == 200

    asyncio.run(asked())


def test_a_gateway_shows_what_a_fleet_does():
    gate = Gateway(NS, "east", "gate", "life", b"salt")
    found = {(x.full, labels): value for x, labels, value in samples_of(gate, 0)}
    assert found["olearning_devices", ("east", "idle")] == found["olearning_delta_blocks_sent_total", ("east",)] == 0
    assert list(m.families(samples_of(gate, 0)))
    assert unready(gate)


def test_a_sample_that_is_not_as_the_list_says_is_refused():
    with pytest.raises(m.Strange):
        list(m.families([(m.IDENTITY, ("east",), 1.0)]))


def test_two_roles_of_one_process_have_one_series():
    """Else Prometheus would refuse all that the process shows."""
    counts = [1] * (len(m.TO_CLOSE.bounds) + 1)
    family = m.histogram(m.TO_CLOSE, [(("east",), counts, 2.0), (("west",), counts, 1.0), (("east",), counts, 3.0)])
    found = {(s.name, *s.labels.values()): s.value for s in family.samples}
    assert len(found) == len(family.samples)
    assert found["olearning_round_close_seconds_sum", "east"] == 5
    assert found["olearning_round_close_seconds_count", "east"] == 2 * len(counts)


def test_names_are_in_base_units():
    assert len({x.name for x in m.METRICS}) == len(m.METRICS)
    for x in m.METRICS:
        assert re.fullmatch(r"olearning_[a-z_]+", x.name)
        assert not re.search(r"_(ms|milliseconds|kb|mb|minutes|percent|total)$", x.name)
        assert not {"device", "slot"} & set(x.labels)
        assert bool(x.bounds) == (x.kind == m.HISTOGRAM)


def test_the_page_is_current():
    written = (ROOT / "docs/metrics.md").read_text()
    assert written == m.page(), "run `python -m olearning.telemetry.metrics > docs/metrics.md`"


def test_every_command_that_stays_can_show_metrics():
    stays = [*cli.run.registered_commands, *(c for c in cli.app.registered_commands if c.callback.__name__ in STAYS)]
    assert len(stays) >= 5 + len(STAYS)
    for command in stays:
        assert "metrics_port" in inspect.signature(command.callback).parameters, command.callback
