"""Memory of a process, as Linux counts it. In MB (10^6 bytes)."""

import subprocess
import sys
from pathlib import Path


def now_mb(pid: int | str = "self") -> float:
    """What it holds in memory now. Raises `OSError` if it is gone."""
    return _status(pid, "VmRSS")


def peak_mb(pid: int | str = "self") -> float:
    """The most it ever held. Raises `OSError` if it is gone."""
    return _status(pid, "VmHWM")


def idle_mb(modules: str = "olearning.cli") -> float:
    """What a fresh Python holds that has imported these modules (with commas) and waits."""
    code = f"import {modules}; from benchmarks.rss import now_mb; print(now_mb())"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def _status(pid: int | str, name: str) -> float:
    for row in Path(f"/proc/{pid}/status").read_text().splitlines():
        if row.startswith(f"{name}:"):
            return int(row.split()[1]) * 1024 / 1e6
    raise OSError(f"process {pid} is gone: it has no memory any more")
