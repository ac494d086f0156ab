"""`olearning bench gateway` on a real broker, small; and that what the phones say of a server is what it did."""

import asyncio
import subprocess
import sys

import pytest

from benchmarks.phones import WAYS, Crowd
from tests.benchmarks.test_control import measured


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_prints_a_line_for_each_kind_of_work(broker: str) -> None:
    lines = {x["case"]: x for x in measured("gateway", "--quick", "--json", "--bootstrap", broker)}
    assert [(case, x["unit"]) for case, x in lines.items()] == [
        ("polls connections=40", "1/s"),
        ("registrations connections=40", "1/s"),
        ("steady rate=50/s seconds=1 connections=40", "ms"),
        ("deltas connections=40", "MB/s"),
        ("models connections=40", "MB/s"),
        ("all hear of a round connections=40", "ms"),
        ("memory a phone connections=40", "kB"),
    ]
    for case, x in lines.items():
        assert (x["bench"], x["ratio"]) == ("gateway", pytest.approx(x["value"] / x["limit"], rel=1e-2))
        assert ("peer" in x) == case.startswith(("registrations", "steady", "deltas"))
    registrations = lines["registrations connections=40"]["settings"]
    assert 0 < registrations["p50_ms"] <= registrations["p99_ms"]
    assert registrations["us_each"] > 0
    assert registrations["requests_s"] > lines["registrations connections=40"]["value"]


def test_phones_count_what_a_server_answers() -> None:
    async def play(url: str) -> None:
        crowd = Crowd(url, "t", [f"phone-{i}" for i in range(5 + WAYS)])
        assert len(crowd.phones) == 5
        await crowd.open()
        await crowd.polls(7)
        said = await crowd.register(12, 0)
        assert len(crowd.waits) == 12
        assert 0 < said["p50_ms"] <= said["p99_ms"] <= said["max_ms"]
        assert sum(p.polls for p in crowd.phones) > 5
        assert (await crowd.models(3))["bytes"] == 3 * 4 * 65_536
        assert (await crowd.deltas(2))["bytes"] > 2 * 4 * 65_536
        crowd.task = "another"
        with pytest.raises(RuntimeError, match="the server answered 404"):
            await crowd.models(1)
        for task in crowd.listening:
            task.cancel()

    command = [sys.executable, "-m", "benchmarks.bare", "t"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as bare:
        try:
            assert bare.stdout
            asyncio.run(play(bare.stdout.readline().strip()))
        finally:
            bare.kill()
