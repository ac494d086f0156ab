"""Memory and time of a process, as Linux counts them. In MB (10^6 bytes) and seconds."""

import os
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


def cpu_s(pid: int) -> float:
    """CPU time that it took since its start, in user and system mode. Raises `OSError` if it is gone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int | str, name: str) -> float:
    for row in Path(f"/proc/{pid}/status").read_text().splitlines():
        if row.startswith(f"{name}:"):
            return int(row.split()[1]) * 1024 / 1e6
    raise OSError(f"process {pid} is gone: it has no memory any more")
