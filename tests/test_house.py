"""The house keeps its own rules, and each rule can go red."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINTER = PYPROJECT["tool"]["importlinter"]
CONTRACTS = {c["name"]: c for c in LINTER["contracts"]}
LOCKS = sorted((ROOT / "locks").glob("*.txt"))

# ------------------------------------------------------------------ the plane imports no torch and no solver

PLANE = [
    "schemas",
    "streams",
    "processors",
    "learning.aggregation",
    "learning.modular.aggregation",
    "learning.modular.forms",
    "learning.modular.structure",
    "learning.optimisers",
    "learning.registry",
    "learning.rewards",
    "learning.sharing",
    "learning.strategies",
    "olearning.cli",
    "olearning.monitor.charts",
    "olearning.monitor.facts",
    "olearning.monitor.trend",
]
LAZY = ["learning.knapsack", "learning.modular.assignment", "learning.modular.derivation"]
"""They name the solver, and import it only when it is asked."""
IMPORT_ALL = """
import importlib, importlib.util, pkgutil, sys

def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False

names = [n for n in sys.argv[1:] if there(n)]
for name in list(names):
    path = getattr(importlib.import_module(name), "__path__", None)
    names += [m.name for m in pkgutil.walk_packages(path, name + ".")] if path else []
for name in names:
    importlib.import_module(name)
print(*names)
if heavy := {"torch", "sklearn", "ortools", "nicegui", "textual"} & set(sys.modules):
    sys.exit(f"imported by them: {heavy}")
"""


def import_all(names: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Import these and all modules inside them in a fresh Python; it fails if one of the heavy ones came along."""
    return subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *names], cwd=cwd, capture_output=True, text=True, timeout=120
    )


def test_plane_imports_no_torch_and_no_solver():
    done = import_all([*PLANE, *LAZY], ROOT)
    assert done.returncode == 0, done.stderr
    seen = done.stdout.split()
    assert {"schemas.wire", "schemas.topics", "streams.processor"} <= set(seen)
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("heavy", ["torch", "sklearn", "ortools", "nicegui", "textual"])
def test_an_import_of_them_would_be_seen(tmp_path, heavy):
    (tmp_path / f"{heavy}.py").touch()  # a stand-in: the real one takes seconds
    (tmp_path / "role").mkdir()
    (tmp_path / "role" / "__init__.py").touch()
    (tmp_path / "role" / "deep.py").write_text(f"import {heavy}\n")
    done = import_all(["role"], tmp_path)
    assert done.returncode == 1
    assert heavy in done.stderr


# ------------------------------------------------------------------ imports point one way

FORBIDDEN = [
    ("The house: imports point one way", "schemas", "import streams"),
    ("The house: imports point one way", "processors", "import device_sim"),
    ("The house: imports point one way", "learning", "def late():\n    import streams"),
    (
        "torch only where models are trained or scored, the solver only for plans",
        "processors",
        "import torch",
    ),
    (
        "torch only where models are trained or scored, the solver only for plans",
        "processors",
        "def late():\n    import ortools",
    ),
    ("NiceGUI only behind the live page", "streams", "def late():\n    import nicegui"),
    ("schemas and learning do no I/O and start no clock", "learning", "import time"),
    ("processors are state machines: no clock, no event loop, no broker", "processors", "import asyncio"),
    ("what is shown to operators is read from outside", "processors", "import prometheus_client"),
    ("what is shown to operators is read from outside", "streams", "import opentelemetry"),
]


def lint_imports(cwd: Path) -> subprocess.CompletedProcess[str]:
    linter = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([linter, "--no-cache"], cwd=cwd, capture_output=True, text=True, timeout=60)


def skeleton(at: Path) -> None:
    """Our contracts over empty modules: every one that a contract names, and nothing else."""
    text = (ROOT / "pyproject.toml").read_text()
    (at / "pyproject.toml").write_text(
        re.sub(r"(?m)^ignore_imports.*\n", "", text)
    )  # one that matches nothing is an error
    for package in LINTER["root_packages"]:
        (at / package).mkdir()
        (at / package / "__init__.py").touch()
    for contract in CONTRACTS.values():
        for module in contract.get("source_modules", []):
            if module not in LINTER["root_packages"]:
                file = at / f"{module.replace('.', '/')}.py"
                file.parent.mkdir(exist_ok=True)
                (file.parent / "__init__.py").touch()
                file.touch()


def test_every_contract_is_tried():
    assert {name for name, _, _ in FORBIDDEN} == set(CONTRACTS)


def test_a_house_without_imports_keeps_the_rules(tmp_path):
    skeleton(tmp_path)
    done = lint_imports(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in done.stdout


@pytest.mark.parametrize(("contract", "package", "line"), FORBIDDEN)
def test_one_forbidden_import_breaks_its_rule(tmp_path, contract, package, line):
    skeleton(tmp_path)
    (tmp_path / package / "stray.py").write_text(f"{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{len(CONTRACTS) - 1} kept, 1 broken" in done.stdout
    assert re.search(rf"{re.escape(contract)}\s+BROKEN", done.stdout)


# ------------------------------------------------------------------ no bytes that run

RUN = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}


def imported(package: str) -> set[str]:
    """The names of all modules that a package's code imports, wherever it does."""
    out = set()
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                out |= {a.name.split(".")[0] for a in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                out.add(node.module.split(".")[0])
    return out


@pytest.mark.program
def test_no_role_of_the_plane_can_unpickle():
    """Propius reads pickles from whoever sends them. Here a fleet's own workers alone hand each other some, over a pipe."""
    assert not RUN & set().union(*map(imported, ("schemas", "streams", "learning", "processors", "olearning")))
    assert imported("device_sim") & RUN == {"pickle"}


# ------------------------------------------------------------------ the paper's map names what is there


def missing(text: str, root: Path) -> list[str]:
    """What a document names as `folder/file.py::name` and does not exist. `::name` alone is of the file named before."""
    out, file = [], ""
    for path, name in re.findall(r"`([\w/]+\.py)?(?:::(\w+))?`", text):
        if not (path or name):
            continue
        file = path or file
        code = (root / file).read_text() if (root / file).is_file() else None
        if code is None or (name and not re.search(rf"(?m)^((async )?def |class )?{name}\b", code)):
            out.append(f"{file}::{name}")
    return out


@pytest.mark.parametrize(("page", "least"), [("paper-map.md", 50), ("tenants.md", 10)])
def test_the_pages_name_what_is_there(page, least):
    text = (ROOT / "docs" / page).read_text()
    assert missing(text, ROOT) == []
    assert text.count("::") > least


def test_a_name_that_is_not_there_would_be_seen(tmp_path):
    (tmp_path / "code.py").write_text("def there(): ...\nclass Thing:\n    def within(self): ...\nMOST = 1\n")
    text = "`code.py`, `code.py::there`, `::Thing`, `::MOST`, `::within`, `::the`, `gone.py`, `gone.py::there`"
    assert missing(text, tmp_path) == ["code.py::within", "code.py::the", "gone.py::", "gone.py::there"]


# ------------------------------------------------------------------ locks


def pins(lock: Path) -> dict[str, str]:
    """name -> version of a lock file, each of whose lines must be `name==version` with hashes, and nothing else."""
    text = lock.read_text().replace("\\\n", " ")
    out = {}
    for line in text.splitlines():
        found = re.fullmatch(r"([a-z0-9-]+)==([^\s;]+)( ; [^\\]*?)?((?:\s+--hash=sha256:[0-9a-f]{64})+)", line.rstrip())
        assert found, f"{lock.name}: {line[:80]}"
        out[found[1]] = found[2]
    return out


LOCKED_FOR = {"python_version": "3.11", "python_full_version": "3.11.0"}


def closure(asked: list[str]) -> set[str]:
    """All that these requirements need on this system, by what the installed packages say of themselves."""
    names: set[str] = set()
    todo = [(Requirement(r), "") for r in asked]
    seen = set()
    while todo:
        r, extra = todo.pop()
        name = canonicalize_name(r.name)
        if r.marker and not r.marker.evaluate(LOCKED_FOR | {"extra": extra}):
            continue
        names.add(name)
        for inner in ("", *r.extras):
            if (name, inner) not in seen:
                seen.add((name, inner))
                todo += [(Requirement(n), inner) for n in metadata.requires(name) or ()]
    return names


@pytest.mark.parametrize("lock", LOCKS, ids=lambda p: p.stem)
def test_locks_are_hashed_and_name_no_address(lock):
    assert pins(lock)
    assert "://" not in lock.read_text()


def test_a_line_without_a_hash_would_be_seen(tmp_path):
    (tmp_path / "bad.txt").write_text("numpy==2.0\n")
    with pytest.raises(AssertionError, match=r"bad\.txt: numpy"):
        pins(tmp_path / "bad.txt")


def test_locks_are_what_pyproject_asks_for():
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    plane, dev = pins(ROOT / "locks/plane.txt"), pins(ROOT / "locks/dev.txt")
    tested = [r for extra in ("train", "gateway", "monitor", "trace", "dev") for r in extras[extra]]
    asked = {"plane": project["dependencies"], "dev": project["dependencies"] + tested}
    for lock, names in ((plane, asked["plane"]), (dev, asked["dev"])):
        for r in map(Requirement, names):
            assert r.specifier.contains(lock[canonicalize_name(r.name)]), f"{r}: run `make lock`"
        assert set(lock) == closure(names), "run `make lock`"
    assert plane.items() <= dev.items(), "what is tested is not what runs"
    assert {n: metadata.version(n) for n in dev} == dev, "the environment is not the locked one: run `make env`"


def test_plane_is_light():
    assert not {"torch", "scikit-learn", "scipy", "matplotlib", "ortools"} & set(pins(ROOT / "locks/plane.txt"))


# ------------------------------------------------------------------ what is shipped


@pytest.mark.program
def test_wheel_holds_the_packages_and_no_tests(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split("/")[0] for n in names}
    packages = {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"tests"}
    assert {t for t in tops if not t.endswith(".dist-info")} == packages
    assert any(n.endswith("/LICENSE") for n in names)
    assert any(n.endswith("/entry_points.txt") for n in names)
