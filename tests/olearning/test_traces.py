"""A round is one trace, whoever was restarted meanwhile; headers are W3C's; without a place to send traces nothing is done."""

import re
import time
from collections import Counter

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler

from olearning.telemetry.otel import LINGER, Given, OpenTelemetry, end, provider
from olearning.telemetry.spans import Span
from olearning.telemetry.traces import ENDPOINTS, Traced, said_of, traced
from processors.zone import ZoneCoordinator
from schemas.facts import Finalised
from schemas.messages import Admission, Ref
from schemas.topics import parse, topic
from schemas.tracing import parent, step, trace_parent
from streams.memory import Memory
from streams.processor import send
from tests.plane import NS, Plane, spec

KINDS = ("zone", "agg", "fleet")


class TracedPlane(Plane):
    """Every role of it is traced into one exporter."""

    def __init__(self, sampler: Sampler = ALWAYS_ON, **more):
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, id_generator=Given(), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.spans = OpenTelemetry(provider)
        super().__init__(Memory(seed=5), **more)

    def host(self, name: str, make) -> None:
        around = name.startswith(KINDS)
        super().host(name, (lambda life: Traced(make(life), self.spans)) if around else make)


@pytest.fixture(scope="module")
def plane() -> TracedPlane:
    """Two rounds in which some devices train a part of the model, and the zone's leader is killed in the middle of the first."""
    plane = TracedPlane(zones=("east",))
    plane.submit(spec(epochs=1, rounds=2, partial=True))
    leader = plane.hosts["zone-east"]
    assert plane.memory.run(
        lambda: any(r.devices for t in plane.zone("east").tasks.values() for r in t.rounds.values()), 60_000
    )
    leader.crash()
    plane.memory.run(limit=2_000)
    leader.restart()
    assert plane.memory.run(lambda: plane.ended("toy"), 120_000)
    return plane


def test_a_round_is_one_trace(plane):
    """All its steps are in it once, each under the one that it comes of, each begins before it ends."""
    ledger = plane.zone("east").ledger
    for n in (1, 2):
        root = step(ledger, "toy", n)
        spans = [s for s in plane.exporter.get_finished_spans() if s.context.trace_id == root.trace]
        by_id = {s.context.span_id: s for s in spans}
        count = Counter(s.name for s in spans)
        assert len(by_id) == len(spans), "no step twice"
        assert count["round"] == count["gather"] == count["finalise"] == 1
        assert count["register"] == count["deliver"] == 6
        commits = [f for f in plane.facts("east") if type(f).__name__ == "Committed" and f.round == n]
        assert count["commit"] == len(commits)
        if n == 2:  # in round 1 a leader was killed that had heard registrations
            assert count["admit"] == 6
        parents = {
            "register": "round",
            "admit": "register",
            "deliver": "admit",
            "gather": "round",
            "finalise": "round",
            "commit": "round",
        }
        for s in spans:
            assert 0 < s.start_time <= s.end_time
            assert s.attributes["olearning.round"] == n
            if s.name == "round":
                assert s.parent is None
                assert s.attributes["olearning.devices"] == 6
            elif s.parent.span_id in by_id:
                assert by_id[s.parent.span_id].name == parents[s.name]
            else:
                assert (n, s.name) == (1, "deliver"), "only what a killed leader did not end is missing"
        linked = {to.context.span_id for s in spans if s.name == "commit" for to in s.links}
        assert linked == {s.context.span_id for s in spans if s.name == "deliver"}
    assert {s.context.trace_id for s in plane.exporter.get_finished_spans()} == {
        step(ledger, "toy", n).trace for n in (1, 2)
    }


def test_no_span_names_a_device(plane):
    names = set(plane.hosts["fleet-east"].processor.inner.names.values())
    values = [str(v) for s in plane.exporter.get_finished_spans() for v in (s.attributes or {}).values()]
    assert names
    assert not names & set(values)


def test_headers_are_those_of_w3c(plane):
    """In every record of a round, and of the round's trace."""
    ledger = plane.zone("east").ledger
    traces = {step(ledger, "toy", n).trace for n in (1, 2)}
    seen = Counter()
    for name, partitions in plane.memory.topics.items():
        for p in range(len(partitions)):
            for r in plane.memory.records(name, p):
                said = [v for k, v in r.headers if k == "traceparent"]
                what = parse(name).kind.what
                if said:
                    (value,) = said
                    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-01", value)
                    assert parent(r.headers).trace in traces
                    seen[what] += 1
                assert (
                    bool(said) == (what in ("announcements", "registrations", "admissions", "deltas"))
                    or what == "ledger"
                )
    assert seen.keys() == {"announcements", "registrations", "admissions", "deltas", "ledger"}
    facts = plane.facts("east")
    assert seen["ledger"] == sum(type(f).__name__ in ("Opened", "Closed", "Committed", "Finalised") for f in facts)


def test_a_strangers_header_is_not_believed():
    at = step("east-1", "toy", 1)
    assert said_of(at, step("east-1", "toy", 1, "register", "x")), "a step of the same round may be what it comes of"
    assert said_of(at, step("east-1", "toy", 2)) is None, "one of another round not"
    assert parent((trace_parent(at),)) == at
    for bad in (
        b"",
        b"00-0-0-01",
        b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
        b"ff" + trace_parent(at)[1][2:],
        trace_parent(at)[1].upper(),
    ):
        assert parent((("traceparent", bad),)) is None


@pytest.mark.parametrize("blocks", [b"\x00", b"\x00" * 1024])
def test_a_strangers_set_of_blocks_ends_no_fleet(blocks):
    """An admission that gives a set which cannot be: shorter than the model's, or empty."""
    plane = TracedPlane(zones=("east",))
    plane.submit(spec(epochs=1, rounds=1, partial=True))
    fleet = plane.hosts["fleet-east"]
    assert plane.memory.run(lambda: bool(fleet.processor.ledgers), 60_000)
    plane.memory.append(send(topic(NS, "east", "admissions"), Admission("x", "toy", 1, 7, 0, Ref("x", 0), blocks), "x"))
    assert plane.memory.run(lambda: plane.ended("toy"), 120_000)


def test_a_coordinator_that_reads_the_past_keeps_nothing_of_rounds_that_are_over():
    """Nor does one that stands by: each round of the zone's life would be one more."""
    plane = TracedPlane(zones=("east",))
    plane.submit(spec(epochs=1, rounds=3))
    assert plane.memory.run(lambda: plane.ended("toy"), 60_000)
    zone = plane.hosts["zone-east"]
    zone.crash()
    zone.restart()
    plane.memory.run(limit=3_000)
    assert zone.processor.inner.zone.over["toy"].round == 3
    assert not zone.processor.since


def test_a_fleet_keeps_nothing_of_a_task_that_is_over():
    plane = TracedPlane(zones=("east",))
    plane.submit(spec(epochs=1, rounds=3))
    fleet = plane.hosts["fleet-east"]
    assert plane.memory.run(lambda: bool(fleet.processor.ledgers and fleet.processor.since), 60_000)
    assert plane.memory.run(lambda: plane.ended("toy"), 60_000)
    plane.memory.run(limit=3_000)
    assert (fleet.processor.ledgers, fleet.processor.since, fleet.processor.last) == ({}, {}, {})


def test_what_is_not_sampled_is_not_sent_and_says_so():
    plane = TracedPlane(ALWAYS_OFF, zones=("east",))
    plane.submit(spec(epochs=1, rounds=1))
    assert plane.memory.run(lambda: plane.ended("toy"), 60_000)
    assert not plane.exporter.get_finished_spans()
    flags = {
        v[-2:] for r in plane.memory.records(f"{NS}.east.registrations") for k, v in r.headers if k == "traceparent"
    }
    assert flags == {b"00"}


@pytest.mark.program
def test_a_collector_that_is_away_holds_up_nobodys_end(monkeypatch):
    monkeypatch.setenv(ENDPOINTS[0], "http://127.0.0.1:9")
    made = provider("zone", "zone-east")
    OpenTelemetry(made).take(Span("round", step("east-1", "toy", 1), None, 1_000, 2_000, {}))
    began = time.monotonic()
    end(made)
    assert time.monotonic() - began < LINGER + 2, "the SDK alone takes some 10 s"


def test_without_an_address_for_traces_there_is_nothing_around_a_processor(monkeypatch):
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    p = ZoneCoordinator(NS, "east", 2, "zone", "life")
    assert traced(p, "zone") is p
    assert not p.reading.listeners
    monkeypatch.setenv(ENDPOINTS[0], "http://127.0.0.1:9")
    around = traced(p, "zone")
    assert isinstance(around, Traced)
    assert around.inner is p
    assert traced(p, "global") is p


def test_the_result_of_tracing_is_the_same():
    """Values, keys and order of all ledgers are those of a run without."""

    def facts(kind: type[Plane], **more) -> list:
        plane = kind(zones=("east",), **more)
        plane.submit(spec(epochs=1, rounds=1))
        assert plane.memory.run(lambda: plane.ended("toy"), 60_000)
        return [f for f in plane.facts("east") if isinstance(f, Finalised)]

    assert facts(TracedPlane) == facts(Plane, memory=Memory(seed=5)) != []
