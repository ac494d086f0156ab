"""The limits that figures are compared with: that they measure what they say. Nothing here depends on how fast it is."""

import socket
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import limits, rss


def test_rates_of_adding_are_bytes_a_second() -> None:
    for rate in (limits.add_rate(10_000, seconds=0.02), limits.widening_add_rate(10_000, seconds=0.02)):
        assert 1e6 < rate < 1e13


def test_a_bare_round_moves_all_bytes_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = {"up": 0, "down": 0}
    push, pull = limits._push, limits._pull
    monkeypatch.setattr(limits, "_push", lambda s, n: (moved.update(up=moved["up"] + n), push(s, n)))
    monkeypatch.setattr(limits, "_pull", lambda s, n: (moved.update(down=moved["down"] + n), pull(s, n)))
    size = 3 * limits.PIECE + 17  # no multiple of what a call moves
    taken = limits.tcp_round(4, size, repeat=2)
    assert 0 < taken < 60
    assert moved == {"up": 2 * 4 * size, "down": 2 * size + 4}  # and a byte each to say that it is accepted


def test_the_other_end_gone_is_said() -> None:
    a, b = socket.socketpair()
    with a:
        b.close()
        with pytest.raises(ConnectionError, match="gone"):
            limits._pull(a, 10)


def test_memory_is_seen_and_its_peak_stays() -> None:
    before = rss.now_mb()
    block = np.ones(8_000_000)  # 64 MB
    during = rss.now_mb()
    del block
    assert during - before > 50
    assert rss.peak_mb() > rss.now_mb() + 50  # the kernel's counts are right to some pages for each thread


def test_a_process_that_is_gone_has_no_memory() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(OSError, match=r"gone|No such"):
        rss.now_mb(process.pid)


def test_idle_is_of_a_fresh_process() -> None:
    assert 10 < rss.idle_mb("benchmarks.line") < 200
