"""People's own code: how it is found, what is said of code that cannot be loaded, and what importing `olearning` costs."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import learning.models  # noqa: F401  # those that are there before anybody's own
import olearning
from learning import registry, strategies
from olearning.cli import outcome
from olearning.errors import USAGE, Trouble
from olearning.loading import load_code
from olearning.roles import Role
from olearning.tasks import parse_task
from olearning.up import Shape
from schemas import task

ROOT = Path(olearning.__file__).parent.parent
DIGITS = Path(olearning.__file__).with_name("digits.toml")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """We run in a folder of our own, and forget what was loaded there."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "models", dict(registry.models))
    monkeypatch.setattr(strategies, "_own", {})
    monkeypatch.setattr(strategies, "STRATEGIES", {})
    monkeypatch.setattr(task, "STRATEGIES", strategies.STRATEGIES)
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


MODEL = "from olearning import model\n\n@model({!r})\ndef build():\n    return None\n"


def test_files_and_modules_are_loaded_once(folder: Path) -> None:
    (folder / "mine.py").write_text(MODEL.format("one"))
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").touch()
    (folder / "package" / "part.py").write_text(MODEL.format("two"))
    load_code(["mine.py", "package.part"])
    load_code(
        [str(folder / "mine.py"), "package.part", "./mine.py"]
    )  # a second time would be refused: the name is taken
    assert {"one", "two"} <= registry.models.keys()
    load_code(None)


def test_a_file_finds_what_lies_beside_it_and_hides_nothing_of_ours(folder: Path) -> None:
    there = folder / "there"
    there.mkdir()
    (there / "beside.py").write_text("NAME = 'beside'\n")
    (there / "schemas.py").write_text("raise RuntimeError('not this one')\n")
    (there / "mine.py").write_text(
        "from beside import NAME\nimport schemas.task\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Thing:\n    at: 'int' = 0\n" + MODEL.replace("{!r}", "NAME")
    )
    load_code([str(there / "mine.py")])
    assert "beside" in registry.models


def test_a_file_is_the_module_of_its_name_so_that_worker_processes_find_it(folder: Path) -> None:
    (folder / "mine.py").write_text(MODEL.format("one"))
    load_code(["mine.py"])
    assert registry.models["one"].__module__ == "mine"
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    for name in ("mine", "json", "schemas"):
        (elsewhere / f"{name}.py").write_text("raise RuntimeError('never run')\n")
        with pytest.raises(
            Trouble, match=rf"--load {elsewhere}/{name}\.py: .*{name}.* has that name already: give the file"
        ):
            load_code([str(elsewhere / f"{name}.py")])


BROKEN = [
    ("absent.py", None, r"--load absent\.py: there is no such \.py file"),
    ("some/where", None, "there is no such .py file"),
    ("absent.part", None, r"there is no module absent\.part in this environment or folder; a file ends in \.py"),
    ("raises.py", "\n\n1 / 0\n", r"ZeroDivisionError: division by zero \(.*raises\.py, line 3\)"),
    ("syntax.py", "\ndef f(:\n", r"it is not Python: .* \(.*syntax\.py, line 2\)"),
    ("lacks.py", "import no_such_thing\n", r"no_such_thing is not installed \(.*lacks\.py, line 1\)"),
    ("exits.py", "import sys\nsys.exit('stop')\n", r"SystemExit: stop \(.*exits\.py, line 2\)"),
    ("taken.py", MODEL.format("x") + MODEL.format("x"), r"ValueError: there is a model 'x' already \("),
    ("wrong.py", "from olearning import modle\n", r"ImportError: cannot import name 'modle'"),
    ("inmodule", "\nboom()\n", r"NameError: name 'boom' is not defined \(.*inmodule\.py, line 2\)"),
]


@pytest.mark.parametrize(("name", "code", "words"), BROKEN, ids=[b[0] for b in BROKEN])
def test_what_cannot_be_loaded_is_said_with_its_line(folder: Path, name: str, code: str | None, words: str) -> None:
    if code is not None:
        (folder / name.removesuffix(".py")).with_suffix(".py").write_text(code)
    with pytest.raises(Trouble, match=words) as e:
        load_code([name])
    assert e.value.code == USAGE
    assert str(e.value).startswith(f"--load {name}: ")


# ------------------------------------------------------------------ on the command line

STRATEGY = """from olearning import strategy

@strategy("mine", settings={"rate": 1.0})
def mine(settings, model, delta, state):
    return model + settings["rate"] * delta, state
"""


@pytest.mark.parametrize(
    "words",
    [
        ["submit", "x.toml", "--bootstrap", "x:1"],
        ["update", "x.toml", "--bootstrap", "x:1"],
        ["run", "global", "--zones", "east"],
        ["run", "zone", "--zone", "east"],
        ["run", "evaluator"],
        ["fleet", "--zone", "east", "--count", "1"],
        ["up", "--memory"],
        ["simulate", "x.toml"],
        ["verify", "toy", "1", "--zone", "east"],
    ],
    ids=lambda w: " ".join(w[:2]),
)
def test_every_command_that_needs_it_takes_it_and_says_what_is_wrong(words, folder: Path, capsys) -> None:
    (folder / "bad.py").write_text("boom()\n")
    assert outcome([*words, "--load", "bad.py"]) == USAGE
    assert re.search(r"--load bad\.py: NameError: .*bad\.py, line 1", capsys.readouterr().err)


def test_submit_names_what_it_misses(folder: Path, capsys) -> None:
    (folder / "strategy.toml").write_text(
        DIGITS.read_text() + "\n[server]\noptimiser = 'mine'\nargs = { rate = 0.5 }\n"
    )
    assert outcome(["submit", "strategy.toml", "--bootstrap", "127.0.0.1:1"]) == USAGE
    assert re.search(r"strategy\.toml: server\.optimiser 'mine' is not known.*--load", capsys.readouterr().err)
    (folder / "mine.py").write_text(STRATEGY)
    load_code(["mine.py"])
    assert parse_task(folder / "strategy.toml").server.settings == {"rate": 0.5}


def test_roles_take_it_along_to_their_processes() -> None:
    shape = Shape("ns", devices=1, load=("a.py", "b.c"))
    roles = [*shape.plane(), *shape.fleets()]
    takers = {"global", "zone", "evaluator", "fleet"}
    for role in roles:
        command = role.command("x:1")
        given = [command[i + 1] for i, word in enumerate(command) if word == "--load"]
        assert given == (["a.py", "b.c"] if role.kind in takers else [])
    assert {r.kind for r in roles} > takers
    assert "--load" not in Role("zone", "z", "ns", "east").command("x:1")


def test_a_role_loads_it_before_it_is_built(folder: Path) -> None:
    (folder / "mine.py").write_text(STRATEGY)
    Role("zone", "z", "ns", "east", load=("mine.py",)).build("1")
    assert "mine" in strategies.STRATEGIES


# ------------------------------------------------------------------ what it costs

API = "model, data, client, strategy, flower, Client, Context, Dataset, held_out"


def heavy_after(code: str) -> set[str]:
    """Which of the heavy packages a fresh Python has imported after this."""
    code += "\nimport sys\nprint(*{'torch', 'sklearn', 'ortools', 'flwr'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_api_loads_no_torch(folder: Path) -> None:
    assert heavy_after(f"import olearning\nfrom olearning import {API}") == set()
    (folder / "torch.py").touch()  # a stand-in: the real one takes seconds
    assert heavy_after(f"import sys\nsys.path.insert(0, {str(folder)!r})\nimport olearning, torch") == {"torch"}


def test_a_zone_that_loads_a_model_with_its_strategy_loads_no_torch() -> None:
    own = str(ROOT / "examples" / "own_model.py")
    code = f"from olearning.roles import Role\nRole('zone', 'z', 'ns', 'east', load=({own!r},)).build('1')"
    assert heavy_after(code) == set()


def test_the_api_has_what_it_lists() -> None:
    for name in olearning.__all__:
        assert callable(getattr(olearning, name)), f"{name}: a module of that name in olearning/ hides it"
    (typed,) = (x for x in ast.parse(Path(olearning.__file__).read_text()).body if isinstance(x, ast.If))
    told = {a.asname: x.module for x in typed.body if isinstance(x, ast.ImportFrom) for a in x.names}
    assert told == olearning._WHERE, "editors and type checkers are told the same"
    assert set(dir(olearning)) == set(olearning.__all__)
    assert set(re.findall(r"\w+", olearning.__doc__ or "")) >= set(olearning.__all__), "help(olearning) names it all"
    with pytest.raises(AttributeError, match=r"olearning has no 'modle'; it has .*model"):
        olearning.modle  # noqa: B018
