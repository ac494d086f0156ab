"""The shim around Flower's `ClientApp`, with the real flwr; and what is said without it.

flwr wants older versions of what our locks have (typer, rich, packaging), so it is none of them. Its environment, which the
benchmarks have too, is made from `locks/flower.txt` when this is first run, as `make env` makes ours: that needs a package index,
and without one this fails and is not skipped. A Python of ours then runs `flower_inside.py` with Flower's packages behind ours.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.flower.environment import binaries
from device_sim.flower import flower

HERE = Path(__file__).parent
INSIDE = """
import sys
sys.path.append(sys.argv[1])
sys.path.append(sys.argv[2])
import pytest
sys.exit(pytest.main(["-p", "no:cacheprovider", "-q", sys.argv[3]]))
"""


@pytest.mark.program
@pytest.mark.timeout(600)
def test_unchanged_apps_run_in_the_real_flower() -> None:
    (site,) = binaries().parent.glob("lib/python*/site-packages")
    words = [sys.executable, "-c", INSIDE, str(site), str(HERE), str(HERE / "flower_inside.py")]
    done = subprocess.run(words, cwd=HERE.parents[1], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    asked = len(re.findall(r"(?m)^def test_", (HERE / "flower_inside.py").read_text()))
    dots = re.findall(r"(?m)^(\.+) +\[", done.stdout)
    assert sum(map(len, dots)) >= asked > 5
    assert "skipped" not in done.stdout


def test_without_flwr_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr", None)
    with pytest.raises(RuntimeError, match=r"flwr is not installed.* install olearning\[flower\]"):
        flower("app", object(), dict)
