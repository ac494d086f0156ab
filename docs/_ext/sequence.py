"""Mermaid's sequence diagrams as SVG, without JavaScript: GitHub draws the same block by itself. Participants, arrows, notes; nothing else."""

import re
from html import escape
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

WIDE, ROW, TOP, MARGIN = 190, 34, 58, 95
STYLE = (
    ".sequence-line{stroke:currentColor;stroke-width:1}.sequence-life{stroke:currentColor;stroke-width:1;opacity:.25}"
    ".sequence-box{fill:none;stroke:currentColor}.sequence-text{fill:currentColor;font:13px sans-serif}"
    ".sequence-number{fill:currentColor;font:bold 11px sans-serif;opacity:.6}.sequence-head{fill:currentColor}"
)


class Unknown(ValueError):
    """A line that this does not draw."""


def svg(text: str) -> str:
    """The diagram as an SVG element. Raises `Unknown`."""
    names: dict[str, str] = {}
    steps: list[tuple[str, str, str, str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if line in ("sequenceDiagram", "autonumber"):
            continue
        if found := re.fullmatch(r"participant (\w+) as (.+)", line):
            names[found[1]] = found[2]
        elif found := re.fullmatch(r"(\w+)(--?>>)(\w+): (.+)", line):
            steps.append((found[1], found[3], found[2], found[4]))
        elif found := re.fullmatch(r"Note over (\w+): (.+)", line):
            steps.append((found[1], found[1], "note", found[2]))
        else:
            raise Unknown(f"{line!r} is nothing that a sequence diagram here can have")
    if strangers := {x for a, b, *_ in steps for x in (a, b)} - names.keys():
        raise Unknown(f"no participant is called {', '.join(sorted(strangers))}")
    at = {name: MARGIN + i * WIDE for i, name in enumerate(names)}
    width, height = 2 * MARGIN + (len(names) - 1) * WIDE + 60, TOP + ROW * (len(steps) + 1)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="Sequence of messages">',
        f"<style>{STYLE}</style>",
    ]
    for name, label in names.items():
        x = at[name]
        out.append(f'<rect class="sequence-box" x="{x - 88}" y="8" width="176" height="32" rx="5"/>')
        out.append(f'<text class="sequence-text" x="{x}" y="29" text-anchor="middle">{escape(label)}</text>')
        out.append(f'<line class="sequence-life" x1="{x}" y1="40" x2="{x}" y2="{height - 8}"/>')
    number = 0
    for i, (a, b, kind, words) in enumerate(steps):
        y, x1, x2 = TOP + ROW * (i + 1), at[a], at[b]
        if kind == "note":
            out.append(
                f'<text class="sequence-text" font-style="italic" x="{x1 + 10}" y="{y - 4}">{escape(words)}</text>'
            )
            continue
        number += 1
        way = 1 if x2 > x1 else -1
        dashes = ' stroke-dasharray="4 4"' if kind == "-->>" else ""
        out.append(f'<line class="sequence-line" x1="{x1}" y1="{y}" x2="{x2 - 7 * way}" y2="{y}"{dashes}/>')
        out.append(f'<path class="sequence-head" d="M{x2} {y}l{-9 * way} -4v8z"/>')
        left = min(x1, x2) + 8
        out.append(
            f'<text class="sequence-text" x="{left}" y="{y - 6}"><tspan class="sequence-number">{number} </tspan>{escape(words)}</text>'
        )
    return "\n".join([*out, "</svg>"])


class Sequence(Directive):
    has_content = True

    def run(self) -> list[nodes.Node]:
        try:
            drawn = svg("\n".join(self.content))
        except Unknown as e:
            raise self.error(str(e)) from None
        return [nodes.raw("", f'<div class="sequence">{drawn}</div>', format="html")]


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("mermaid", Sequence)
    return {"parallel_read_safe": True}
