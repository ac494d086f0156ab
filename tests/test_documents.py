"""The documents hold what they promise: links lead somewhere, snippets are code, commands are there, the tutorial runs, the site is built."""

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

import olearning
from olearning import scenario
from olearning.cli import app, outcome
from olearning.errors import OK
from schemas.task import BadTask, TaskSpec, parse

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("deploy/**/README.md")]
)
NAMES = [str(p.relative_to(ROOT)) for p in PAGES]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str | None = None) -> list[str]:
    """What stands in fences, of one language or of all."""
    return [code for lang, code in FENCE.findall(text) if language is None or lang == language]


def prose(text: str) -> str:
    return FENCE.sub("", text)


# ------------------------------------------------------------------ links


def slug(heading: str) -> str:
    """GitHub's anchor of a heading."""
    words = re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def anchors(text: str) -> set[str]:
    seen: dict[str, int] = {}
    out = set()
    for heading in re.findall(r"(?m)^#+ (.+)$", prose(text)):
        name = slug(heading)
        out.add(f"{name}-{seen[name]}" if name in seen else name)
        seen[name] = seen.get(name, 0) + 1
    return out


def broken(page: Path, text: str) -> list[str]:
    """The links of a page, and its pictures, that lead to no file, or to no heading of one."""
    out = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose(text))):
        if re.match(r"https?:|mailto:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        there = target.exists() and target.is_relative_to(ROOT)
        if not there or (anchor and anchor not in anchors(text if target == page else target.read_text())):
            out.append(link)
    return out


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page, page.read_text()) == []


def test_control_links_that_lead_nowhere_are_seen() -> None:
    text = "# A page\n[a](README.md) [b](gone.md) [c](#a-page) [d](#gone) [e](docs/house.md#locks) [f](docs/house.md#keys) `[g](gone)`"
    assert broken(ROOT / "README.md", text) == ["gone.md", "#gone", "docs/house.md#keys"]
    assert anchors("# A `b` (c), d\n## Same\n## Same\n```\n# not one\n```\n") == {"a-b-c-d", "same", "same-1"}


# ------------------------------------------------------------------ snippets


def wrong_toml(code: str) -> str:
    """Why a snippet is neither a task, nor a part of one, nor a scenario, nor of pyproject.toml; "" if it is one."""
    try:
        tree = tomllib.loads(code)
        if "project" in tree:
            return ""
        if "tasks" in tree or "zones" in tree or "tenants" in tree:
            whole: dict[str, Any] = {
                "zones": {"east": {"devices": 1}},
                "tasks": [{"task": "t", "model": "m", "data": "d"}],
            }
            scenario.check(whole | tree, "the page")
            return ""
        parse({"task": "t", "model": "m", "data": "d"} | tree)
    except (tomllib.TOMLDecodeError, BadTask, scenario.Trouble) as e:
        own = re.search(r"server\.optimiser '(\S+)' is not known", str(e))  # a strategy of somebody's own
        return "" if own and own[1] not in TaskSpec.__struct_fields__ else str(e)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_snippets_are_code(page: Path) -> None:
    text = page.read_text()
    for code in blocks(text, "python"):
        compile(code, str(page), "exec")
    assert [why for code in blocks(text, "toml") if (why := wrong_toml(code))] == []


def test_control_snippets_that_are_none_are_seen() -> None:
    assert wrong_toml("[upload]\ncodec = 'int8'\n") == ""
    assert "colour" in wrong_toml("[rounds]\ncolour = 3\n")
    assert "devices" in wrong_toml("[zones]\neast = { devices = -1 }\n")
    assert wrong_toml("= 3")
    with pytest.raises(SyntaxError):
        compile(blocks("```python\ndef\n```\n")[0], "", "exec")


# ------------------------------------------------------------------ commands

CLI = typer.main.get_command(app)
TARGETS = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))


def said(text: str) -> Iterator[str]:
    """The command lines of a page: in fences and indented blocks, and those between backticks."""
    for code in [*blocks(text), *re.findall(r"(?m)^    (.+)$", prose(text)), *re.findall(r"`([^`\n]+)`", prose(text))]:
        for line in code.splitlines():
            line = re.sub(r"^(\$ )?(\w+=\S+ )*", "", line.strip())
            if re.match(r"(olearning|make) ", line) and "…" not in line:
                yield re.sub(r"\s+# .*|[;|&].*", "", line)


def unknown(line: str) -> str:
    """What of a command line there is not; "" if all of it is."""
    program, *words = shlex.split(line)
    if program == "make":
        return next((w for w in words if "=" not in w and w not in TARGETS and not w.startswith("-")), "")
    at: Any = CLI
    for word in words:
        if word.startswith("-"):
            name = word.split("=")[0]
            if not any(name in (*p.opts, *p.secondary_opts) for p in at.params) and name != "--help":
                return f"{word} of {at.name}"
        elif hasattr(at, "commands"):
            if word.isupper() or "|" in word:  # a placeholder
                return ""
            if word not in at.commands:
                return word
            at = at.commands[word]
    return ""


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_are_there(page: Path) -> None:
    assert [(line, what) for line in said(page.read_text()) if (what := unknown(line))] == []


def test_control_commands_that_are_not_there_are_seen() -> None:
    assert unknown("olearning tail east.ledger -f --json") == ""
    assert unknown("olearning tial east.ledger") == "tial"
    assert unknown("olearning run zone --zones east") == "--zones of zone"
    assert unknown("make tests") == "tests"
    assert list(said("run `make demo` or\n\n    olearning up --memory  # all\n\n```\n$ olearning queue | head\n```\n")) == [
        "olearning queue ", "olearning up --memory", "make demo",
    ]  # fmt: skip
    assert sum(1 for page in PAGES for _ in said(page.read_text())) > 100


# ------------------------------------------------------------------ the API


def test_the_api_s_page_has_all_of_it_and_nothing_else() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    assert set(re.findall(r"(?m)^\.\. auto\w+:: (\w+)", page)) == set(olearning.__all__)


# ------------------------------------------------------------------ the tutorial

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()


def files(text: str) -> dict[str, str]:
    """By name, what the page's snippets put into each file: they begin with a comment that names it."""
    out: dict[str, str] = {}
    for code in blocks(text):
        if found := re.match(r"# (examples/\S+)\n", code):
            out[found[1]] = out.get(found[1], "") + code[found.end() :]
    return out


def test_the_tutorial_shows_the_files_that_it_runs() -> None:
    shown = files(TUTORIAL)
    assert set(shown) == {"examples/steps.py", "examples/steps.toml", "examples/steps-scenario.toml"}
    for name, text in shown.items():
        assert (ROOT / name).read_text() == text, f"{name} is not what docs/tutorial.md shows"


@pytest.mark.program
def test_the_tutorial_s_simulation_comes_to_what_it_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command as it stands there, and its output but for figures that depend on the machine."""
    (line,) = [x for x in said(TUTORIAL) if x.startswith("olearning simulate")]
    (output,) = [x for x in blocks(TUTORIAL) if x.startswith("steps: ")]
    monkeypatch.chdir(ROOT)
    assert outcome(shlex.split(line)[1:]) == OK
    out = capsys.readouterr().out
    for task in ("steps", "centres"):
        found = re.search(rf"(?m)^{task}: 3 epochs; accuracy (0\.9\d+|1\.0+)", out)
        assert found, out
    assert re.sub(r"\d+", "n", output.splitlines()[-1]) == re.sub(r"\d+", "n", out.splitlines()[-1])


# ------------------------------------------------------------------ the site


@pytest.mark.program
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "--fail-on-warning",
        "--keep-going",
        "--quiet",
        "-b",
        "html",
        "docs",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "protocol.html").read_text()
    assert "<svg" in page
    assert "sequenceDiagram" not in page, "Mermaid's source stands there instead of its picture"
    assert (tmp_path / "asyncapi.json").exists()
