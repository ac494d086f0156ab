"""How the documents become a site: `make docs` writes build/docs/index.html. On GitHub the same files read as they are."""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

project = "OLearning on Kafka"
author = "the OLearning on Kafka authors"
copyright = "Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sequence"]
exclude_patterns = ["_ext"]
highlight_language = "none"
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_extra_path = ["asyncapi.json"]
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5c77", "color-brand-content": "#0b5c77"},
    "dark_css_variables": {"color-brand-primary": "#6cc4de", "color-brand-content": "#6cc4de"},
}
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
OPTIONAL = {"deployment", "operations", "monitor", "terminal", "metrics", "telemetry", "gateway"}
"""Pages that the contents list where they are there."""


def _read(app: Any, docname: str, source: list[str]) -> None:
    """What differs between the repository, where a page may link to any file, and the site."""
    text = source[0]
    if docname == "experiments":  # it stands beside the code
        text = (ROOT / "experiments" / "README.md").read_text()
        text = re.sub(r"\]\((?!https?:|#|\.\./)", "](../experiments/", text)
    if docname == "index":
        gone = {name for name in OPTIONAL if not (ROOT / "docs" / f"{name}.md").exists()}
        text = "\n".join(line for line in text.splitlines() if line not in gone)
    text = re.sub(r"\[(?:docs/)?([a-z-]+)\.md\]\(\1\.md\)", r"[](\1.md)", text)  # Sphinx puts the page's title there
    text = text.replace("](../experiments/README.md", "](experiments.md").replace("](../docs/", "](")
    source[0] = re.sub(r"\[([^\]]+)\]\((\.\./[^)#\s]*)(?:#[^)\s]*)?\)", _outside, text)


def _outside(link: re.Match[str]) -> str:
    """Other folders and pages of the repository are not on the site: their names stay. Other files are handed out as they are."""
    there = ROOT / "docs" / link[2]
    return link[1] if there.is_dir() or there.suffix == ".md" else link[0]


def setup(app: Any) -> None:
    app.connect("source-read", _read)
    app.connect("env-get-outdated", lambda *_: ["index"])  # what it lists depends on which pages there are
