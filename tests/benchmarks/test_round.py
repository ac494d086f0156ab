"""`olearning bench round` on a real broker, small; and how its time is split."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.devices import Devices
from benchmarks.round import Story, merged, parts
from schemas.blocks import DeltaBlock, Manifest, ModelBlock, Place
from schemas.facts import Finalised
from schemas.messages import Admission, Announcement, Ref
from schemas.task import Training
from schemas.wire import checksum, decode, encode
from streams.memory import Memory
from streams.models import Lost
from streams.processor import Answer, Fetch, Record, Send, Stop
from tests.plane import NS, Plane, spec

PARTS = ["upload", "count", "close", "finalise", "open", "hear", "fetch"]


@pytest.mark.kafka
@pytest.mark.timeout(120)
def test_prints_a_line_for_each_size(broker: str) -> None:
    words = ["bench", "round", "--quick", "--edges", "2", "--parameters", "500,70k", "--json", "--bootstrap", broker]
    done = subprocess.run([sys.executable, "-m", "olearning", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(x) for x in done.stdout.splitlines()]
    assert [x["case"] for x in lines] == ["devices=3 parameters=500", "devices=3 parameters=70k"]
    for x, parameters in zip(lines, (500, 70_000), strict=True):
        assert x["memory_limit_mb"] == pytest.approx(150 + 2 * 4 * parameters / 1e6, abs=0.06)
        assert (x["bench"], x["unit"]) == ("round", "s")
        assert x["value"] > 0
        assert x["limit"] > 0
        assert x["ratio"] == pytest.approx(x["value"] / x["limit"], rel=1e-2)
        assert "peer" not in x
        made_of = x["settings"]["made_of"]
        assert list(made_of) == PARTS
        assert sum(made_of.values()) == pytest.approx(x["value"], abs=0.01)
        assert x["settings"]["until_all_edges_have_it"] >= x["value"]


def test_a_peer_that_is_not_known_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "olearning", "bench", "round", "--peer", "x"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "flower" in done.stderr


def test_the_parts_follow_each_other_and_add_up() -> None:
    story = Story(commits={3: [10.2, 10.5]}, closed={3: 10.6}, finalised={3: 11.0}, opened={4: 11.1})
    out = parts({"round": 3, "first": 10.0, "sent": 10.4, "heard": 11.2, "read": 11.5}, story)
    assert out.pop("commits") == 2
    assert out.pop("round") == 1.5
    assert out == {
        "upload": 0.4,
        "count": 0.1,
        "close": 0.1,
        "finalise": 0.4,
        "open": 0.1,
        "hear": 0.1,
        "fetch": 0.3,
    }


def test_edges_are_one_from_the_first_block_to_the_first_that_reads_the_model() -> None:
    a = {"round": 2, "first": 1.0, "sent": 3.0, "heard": 4.0, "read": 6.0}
    b = {"round": 2, "first": 1.5, "sent": 3.5, "heard": 4.1, "read": 5.0}
    assert merged([[a], [b]]) == [{"round": 2, "first": 1.0, "sent": 3.5, "heard": 4.1, "read": 5.0, "all_read": 6.0}]


def test_edges_go_through_whole_rounds_of_a_plane_in_memory(capsys: pytest.CaptureFixture) -> None:
    plane = Plane(Memory(seed=1), zones=("east",), devices=0)
    plane.submit(spec(demand=5, epochs=1, rounds=4))
    edges = [plane.memory.host(lambda life, n=n: Devices(NS, "east", "toy", n, 3)) for n in (range(2), range(2, 5))]
    assert plane.memory.run(lambda: all(e.stopped for e in edges), 60_000)
    assert [e.stopped for e in edges] == [Stop("that was the last round", ok=True)] * 2
    told = [json.loads(x) for x in capsys.readouterr().out.splitlines()]
    assert sorted(t["round"] for t in told) == [1, 1, 2, 2, 3, 3]
    done = [f for f in plane.facts("east") if isinstance(f, Finalised)]
    assert [f.devices for f in done] == [5, 5, 5]


# ------------------------------------------------------------------ the devices, by hand


class Round:
    """Two devices in front of a plane that is played here; blocks of 3 and 2 values."""

    def __init__(self, rounds: int = 2):
        self.devices = Devices("n", "z", "t", range(2), rounds)
        self.sizes, self.vector = (3, 2), np.zeros(5, np.float32)

    def give(self, event) -> list:
        return list(self.devices.handle(event, 0))

    def announce(self, n: int) -> list:
        """The announcement of round n, and what the devices ask for."""
        self.blocks = {
            f"b{n}{i}": encode(ModelBlock("t", n - 1, i, np.ascontiguousarray(x).data.cast("B")))
            for i, x in enumerate(np.split(self.vector, [3]))
        }
        places = [
            Place(0, i, k, checksum(decode(v, (ModelBlock,)).data)) for i, (k, v) in enumerate(self.blocks.items())
        ]
        self.base = Manifest("n.z.models", n - 1, tuple(places))
        a = Announcement(
            "t", "default", n, True, Ref("l", n), "none", {}, "none", {}, Training(), self.sizes, -24, 65536.0, self.base, 1
        )  # fmt: skip
        return self.give(Record("n.z.announcements", 0, n, "t", encode(a), 0))

    def admit(self, n: int, device: int) -> list:
        m = Admission(f"device-{device}", "t", n, device, 1, Ref("l", n))
        return self.give(Record("n.z.admissions", 0, device, m.device, encode(m), 0))


def test_devices_upload_when_all_are_admitted_and_end_when_the_next_model_is_read(
    capsys: pytest.CaptureFixture,
) -> None:
    r = Round(rounds=1)
    (ask,) = r.announce(1)
    assert isinstance(ask, Fetch)
    registered = r.give(Answer(ask.tag, r.blocks))
    assert [x.key for x in registered] == ["device-0", "device-1"]
    assert r.admit(1, 0) == []
    sent = r.admit(1, 1)
    assert [(x.key, decode(x.value, (DeltaBlock,)).block) for x in sent if isinstance(x, Send)] == [
        ("device-0", 0), ("device-1", 0), ("device-0", 1), ("device-1", 1)
    ]  # fmt: skip
    assert not r.devices.times.sent
    for x in sent:
        r.give(Answer(x.tag, (0, 0)))
    assert r.devices.times.sent >= r.devices.times.first
    r.vector = np.ldexp(r.devices.delta, -24).astype(np.float32)  # the mean of two that are alike
    (ask,) = r.announce(2)
    (stop,) = r.give(Answer(ask.tag, r.blocks))
    assert isinstance(stop, Stop)
    assert stop.ok
    times = json.loads(capsys.readouterr().out)
    assert times["round"] == 1
    assert times["first"] <= times["sent"] <= times["heard"] <= times["read"]


def test_devices_notice_a_model_that_is_not_the_mean() -> None:
    r = Round()
    r.give(Answer(r.announce(1)[0].tag, r.blocks))
    for device in (0, 1):
        r.admit(1, device)
    r.vector = np.ones(5, np.float32)
    stop = r.give(Answer(r.announce(2)[0].tag, r.blocks))[0]
    assert isinstance(stop, Stop)
    assert not stop.ok


def test_devices_do_not_take_a_model_whose_checksum_is_wrong() -> None:
    r = Round()
    (ask,) = r.announce(1)
    broken = {k: v[:-1] + b"x" for k, v in r.blocks.items()}
    with pytest.raises(Lost):
        r.give(Answer(ask.tag, broken))
