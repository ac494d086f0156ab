"""`olearning bench control` and `bench isolation` on a real broker, small; what the crowd makes of its times."""

import argparse
import json
import subprocess
import sys

import pytest

from benchmarks.crowd import Crowd, arguments
from benchmarks.line import Line
from schemas.messages import CheckIn
from schemas.partitioner import shard_of


def measured(*words: str) -> list[dict]:
    done = subprocess.run([sys.executable, "-m", "olearning", "bench", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(x) for x in done.stdout.splitlines()]


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_control_prints_a_line_for_each_case(broker: str) -> None:
    lines = measured("control", "--quick", "--json", "--bootstrap", broker)
    assert [(x["case"], x["unit"]) for x in lines] == [
        ("registrations devices=200", "1/s"),
        ("registrations devices=200 checkins=1", "1/s"),
        ("steady rate=200/s seconds=1", "ms"),
        ("deltas beside registrations rate=50/s seconds=2", "ms"),
    ]
    for x in lines:
        assert (x["bench"], x["ratio"]) == ("control", pytest.approx(x["value"] / x["limit"], rel=1e-2))
    for x in lines[:3]:
        assert 0 < x["settings"]["p50_ms"] <= x["settings"]["p99_ms"] <= x["settings"]["max_ms"]
    assert lines[0]["settings"]["us_a_device"]["zone"] > 0
    assert lines[3]["settings"]["deltas_mb_s"] > 1


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_isolation_prints_a_line(broker: str) -> None:
    (x,) = measured("isolation", "--quick", "--json", "--bootstrap", broker)
    assert (x["bench"], x["unit"]) == ("isolation", "s")
    assert x["limit"] == pytest.approx(2 * x["settings"]["alone_s"], rel=1e-2, abs=1e-3)  # which is rounded to a ms
    assert x["settings"]["without_shares_s"] > 0


def crowd(*more: str) -> Crowd:
    words = ["--bootstrap", "x", "--namespace", "n", "--zone", "z", "--task", "t", *more]
    return Crowd(arguments(words), 4)


def test_a_crowd_s_records_lie_where_any_client_puts_them() -> None:
    c = crowd("--first", "5", "--count", "3")
    wire = c.wire(CheckIn(name) for name in c.names)
    assert [(p, key.decode()) for p, key, _ in wire] == [(shard_of(n, 4), n) for n in c.names]
    assert c.names[0] == f"{5:032x}"


def test_times_are_from_a_registration_to_its_answer() -> None:
    c = crowd("--count", "100")
    c.sent = [10 + 0.01 * i for i in range(100)]
    c.answered = [s + 0.001 * (i + 1) for i, s in enumerate(c.sent)]
    c.refused = 2
    said = c.said()
    assert (said["answers"], said["admitted"], said["refused"]) == (100, 98, 2)
    assert [round(said[k], 6) for k in ("p50_ms", "p99_ms", "max_ms")] == [51, 99, 100]
    assert said["seconds"] == pytest.approx(0.99 + 0.1)
    c.answered[7] = 0
    assert c.said()["answers"] == 99
    with pytest.raises(RuntimeError, match="nobody"):
        Crowd(argparse.Namespace(first=0, count=1), 4).said()


def test_a_line_wants_what_was_measured() -> None:
    with pytest.raises(ValueError, match="was not measured"):
        Line(bench="control", case="x", value=0, unit="ms", limit=1)
