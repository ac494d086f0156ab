"""What the machine can do at best, measured in the same run as what is compared with it."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

PIECE = 2**20
"""Bytes that one call hands to a socket or takes from it."""


def add_rate(values: int, kind: str = "f4", seconds: float = 0.5) -> float:
    """Bytes a second at which one thread adds an array of `values` into another of the same type, in place."""
    into, array = np.zeros(values, kind), np.ones(values, kind)
    return _rate(lambda: np.add(into, array, out=into), array.nbytes, seconds)


def widening_add_rate(values: int, seconds: float = 0.5) -> float:
    """Bytes of int32 a second that one thread adds into 64-bit integers, in place."""
    into, array = np.zeros(values, np.int64), np.ones(values, np.int32)
    return _rate(lambda: np.add(into, array, out=into, casting="same_kind"), array.nbytes, seconds)


def _rate(once: Callable[[], object], size: int, seconds: float) -> float:
    once()
    times, began = 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < seconds or times < 3:
        once()
        times += 1
    return times * size / taken


# ------------------------------------------------------------------ a round over bare TCP


def tcp_round(devices: int, size: int, repeat: int = 3) -> float:
    """Seconds in which `devices` send `size` bytes each over local TCP to another process, which keeps nothing, and one of
    them reads a model of `size` bytes from there. The best of `repeat`.

    Each device has a connection of its own and a thread; the server answers when it has read everything.
    """
    command = f"from benchmarks.limits import serve; serve({devices}, {size}, {repeat})"
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True) as server:
        sockets: list[socket.socket] = []
        try:
            assert server.stdout
            port = int(server.stdout.readline())
            for _ in range(devices):
                sockets.append(socket.create_connection(("127.0.0.1", port)))
                _pull(sockets[-1], 1)  # it is accepted: so both ends count alike
            return min(_round(sockets, size) for _ in range(repeat))
        finally:
            for s in sockets:
                s.close()
            server.kill()


def serve(devices: int, size: int, repeat: int) -> None:
    """The other end; prints its port first."""
    sockets = []
    with socket.create_server(("127.0.0.1", 0), backlog=devices) as listening:
        print(listening.getsockname()[1], flush=True)
        for _ in range(devices):
            sockets.append(listening.accept()[0])
            _push(sockets[-1], 1)
    for _ in range(repeat):
        threads = [threading.Thread(target=_pull, args=(s, size)) for s in sockets]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        _push(sockets[0], size)


def _round(sockets: list[socket.socket], size: int) -> float:
    began = time.perf_counter()
    threads = [threading.Thread(target=_push, args=(s, size)) for s in sockets]
    for t in threads:
        t.start()
    _pull(sockets[0], size)
    taken = time.perf_counter() - began
    for t in threads:
        t.join()
    return taken


def _push(to: socket.socket, size: int) -> None:
    piece = memoryview(bytes(min(size, PIECE)))
    while size:
        size -= to.send(piece[: min(size, PIECE)])


def _pull(of: socket.socket, size: int) -> None:
    piece = memoryview(bytearray(min(size, PIECE)))
    while size:
        got = of.recv_into(piece, min(size, PIECE))
        if not got:
            raise ConnectionError("the other end of a bare TCP round is gone")
        size -= got
