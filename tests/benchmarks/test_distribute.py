"""`olearning bench distribute` on a real broker, small: every edge has the version whole, whichever way it went."""

import asyncio
import json
import os
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from benchmarks.distribute import _write
from benchmarks.edges import OneEdge, announced
from benchmarks.load import drop_topics
from benchmarks.sent import pid_of, written
from schemas.blocks import slices
from schemas.wire import checksum

EDGES, VALUES = 2, 70_000


@pytest.mark.kafka
@pytest.mark.timeout(120)
def test_prints_two_lines_for_each_number_of_edges(broker: str) -> None:
    words = ["bench", "distribute", "--quick", "--edges", "1,2", "--json", "--bootstrap", broker]
    done = subprocess.run([sys.executable, "-m", "olearning", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(x) for x in done.stdout.splitlines()]
    assert [x["case"] for x in lines] == [
        f"edges={n} parameters=70k by={how}" for n in (1, 2) for how in ("blocks", "differences")
    ]
    for x in lines:
        s = x["settings"]
        assert x["value"] > 0
        assert x["limit"] > 0
        assert s["model_mb"] == pytest.approx(4 * VALUES / 1e6 * (1 if "edges=1" in x["case"] else 2), abs=0.01)
        if "differences" in x["case"]:
            assert 0.6 < s["differences_share"] < 0.8
            assert s["fetched_mb"] == pytest.approx(s["differences_share"] * s["model_mb"], rel=0.03)
        else:
            assert s["fetched_mb"] == pytest.approx(s["model_mb"], rel=0.03)
        if s.get("broker_sent_mb"):
            assert s["fetched_mb"] < s["broker_sent_mb"]
            assert s["broker_sent_mb"] < 0.8 * s["broker_sent_plain_mb"]  # an edge asks for what it wants


@pytest.mark.kafka
@pytest.mark.timeout(120)
def test_an_edge_on_kafka_has_the_bits_and_falls_back_to_the_blocks(broker: str) -> None:
    async def once() -> None:
        versions, _ = await _write(broker, "bench-fallback", VALUES, 4)
        try:
            edges = [OneEdge(broker, f"edge-{i}", versions) for i in range(EDGES)]
            for n in range(3):
                await asyncio.gather(*(e.have(n, differences=n > 0) for e in edges))
            fetched = [e.edge.fetched for e in edges]
            assert all(4 * VALUES * 2 < f < 4 * VALUES * 2.8 for f in fetched)  # one whole, two of 0.7
            wrong = versions.manifests[3]
            astray = tuple(msgspec.structs.replace(d, offset=0) for d in wrong.differences if d)
            gone = tuple(msgspec.structs.replace(p, key=f"{p.key}-of-nobody") for p in wrong.blocks)
            versions.manifests = (*versions.manifests, msgspec.structs.replace(wrong, differences=astray))
            await edges[0].have(4, differences=True)  # the offsets are hints: it is found by its key
            assert edges[0].edge.fetched - fetched[0] < 4 * VALUES * 0.8
            versions.manifests = (*versions.manifests, msgspec.structs.replace(wrong, blocks=gone))
            with pytest.raises(RuntimeError, match="of-nobody"):
                await edges[1].have(5, differences=True)
            await edges[1].have(3, differences=True)
            for e in edges:
                model = e.edge.model(announced(wrong, versions.sizes))
                assert model is not None
                here = [checksum(np.ascontiguousarray(model[p]).data.cast("B")) for p in slices(versions.sizes)]
                assert here == [p.checksum for p in wrong.blocks]
                await e.cluster.stop()
        finally:
            await drop_topics(broker, "bench-fallback")

    asyncio.run(once())


def test_what_a_process_wrote_is_counted(tmp_path) -> None:
    assert written(None) is None
    mine = written(os.getpid())
    if mine is None:
        pytest.skip("this system does not say")
    (tmp_path / "x").write_bytes(bytes(10_000))
    after = written(os.getpid())
    assert after is not None
    assert after - mine >= 10_000
    assert pid_of("127.0.0.1:1") is None
