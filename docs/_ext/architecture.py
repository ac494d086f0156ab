"""Draws docs/architecture.svg: `python docs/_ext/architecture.py`. Roles on the sides, topics between them, the path of one delta in numbers."""

from html import escape
from pathlib import Path

INK, QUIET, PAPER = "#16303b", "#5b7480", "#ffffff"
ROLE, TOPIC, LEDGER, PATH = "#e3f0f4", "#f4f1e8", "#f6c453", "#b3261e"
STYLE = f"""text{{font-family:system-ui,"Segoe UI",Helvetica,Arial,sans-serif;fill:{INK};font-size:15px}}
.t{{font-weight:600;font-size:16px}}.s{{font-size:12.5px;fill:{QUIET}}}.m{{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:13.5px}}
.n{{font-weight:700;font-size:12px;fill:#fff}}"""
out: list[str] = []


def box(x: int, y: int, w: int, h: int, fill: str, title: str, *lines: str, top: int = 26) -> None:
    out.append(
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="8" fill="{fill}" stroke="{INK}" stroke-width="1.2"/>'
    )
    out.append(f'<text class="t" x="{x + w // 2}" y="{y + top}" text-anchor="middle">{escape(title)}</text>')
    for i, line in enumerate(lines):
        out.append(
            f'<text class="s" x="{x + w // 2}" y="{y + top + 20 + 17 * i}" text-anchor="middle">{escape(line)}</text>'
        )


def pipe(x: int, y: int, w: int, h: int, name: str, says: str, fill: str = TOPIC, shards: int = 0) -> None:
    out.append(
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{h // 2 if h < 36 else 10}" fill="{fill}" stroke="{QUIET}"/>'
    )
    for i in range(1, shards):
        at = y + h * i // shards
        if i * 2 == shards:
            continue  # the words stand there
        out.append(
            f'<line x1="{x + 4}" y1="{at}" x2="{x + w - 4}" y2="{at}" stroke="{QUIET}" stroke-width=".5" stroke-dasharray="3 4" opacity=".7"/>'
        )
    middle = y + h / 2 + 5
    out.append(f'<text class="m" x="{x + 16}" y="{middle}">{escape(name)}</text>')
    out.append(f'<text class="s" x="{x + w - 14}" y="{middle}" text-anchor="end">{escape(says)}</text>')


def arrow(x1: int, y1: int, x2: int, y2: int, number: int = 0, where: float = 0.5, path: bool = True) -> None:
    colour = PATH if path else QUIET
    out.append(
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="{2 if path else 1.3}" marker-end="url(#{"p" if path else "q"})"/>'
    )
    if number:
        x, y = x1 + (x2 - x1) * where, y1 + (y2 - y1) * where
        out.append(
            f'<circle cx="{x:.0f}" cy="{y:.0f}" r="10" fill="{PATH}"/><text class="n" x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">{number}</text>'
        )


def draw() -> str:
    left, right = 280, 740
    out.append(f'<rect width="1110" height="720" rx="10" fill="{PAPER}"/>')
    out.append(
        '<text class="t" x="28" y="36">One zone</text><text class="s" x="116" y="36">what travels is a record of a Kafka topic; who decides is a process that may die at any time</text>'
    )
    box(
        28,
        56,
        176,
        440,
        ROLE,
        "Devices",
        "phones behind an edge:",
        "a gateway, or a",
        "simulated fleet",
        "",
        "their data, its quality",
        "and their free hours",
        "never leave them;",
        "abilities, wishes and",
        "weighted deltas do",
    )
    box(
        944,
        56,
        138,
        440,
        ROLE,
        "Zone",
        "coordinator",
        "",
        "opens rounds,",
        "admits under leases,",
        "closes, adds the",
        "sums, steps the",
        "model",
        "",
        "several may run:",
        "one leads",
    )
    box(792, 214, 120, 118, ROLE, "Aggregators", "any of them for", "any task, on the", "shards it holds")
    w = right - left
    pipe(left, 66, w, 30, "announcements", "open rounds and what they are worth")
    pipe(left, 112, w, 30, "registrations", "“I would take part”")
    pipe(left, 158, w, 30, "admissions", "a slot and a lease, or a refusal")
    pipe(left, 206, w, 58, "deltas.<task>", "blocks, by device, in P shards", shards=4)
    pipe(left, 282, w, 30, "receipts", "what became of them")
    pipe(left, 328, w, 44, "partials", "exact sums, and bitmaps of what is in them")
    pipe(left, 390, w, 30, "models", "blocks of each version")
    pipe(left, 444, 600, 46, "ledger", "every decision, in one order. What is not in it did not happen", LEDGER)
    gap = left - 6
    arrow(944, 81, right + 4, 81, 1)
    arrow(left - 2, 81, 208, 81, 1)
    arrow(204, 127, gap, 127, 2)
    arrow(right, 127, 940, 127, 2)
    arrow(944, 173, right + 4, 173, 3)
    arrow(left - 2, 173, 208, 173, 3)
    arrow(204, 235, gap, 235, 4)
    arrow(right, 235, 788, 235, 5)
    arrow(792, 297, right + 4, 297, 8)
    arrow(left - 2, 297, 208, 297, 8)
    arrow(792, 326, right + 4, 342, 6)
    arrow(right, 358, 940, 358, 9)
    arrow(852, 332, 852, 440, 7, 0.72)
    arrow(944, 405, right + 4, 405, 10, 0.25)
    arrow(left - 2, 405, 208, 405, 10)
    arrow(944, 458, 884, 458, 3)
    arrow(944, 478, 884, 478, 10)
    out.append(f'<line x1="28" y1="520" x2="1082" y2="520" stroke="{QUIET}" stroke-dasharray="2 5"/>')
    out.append('<text class="t" x="28" y="550">All zones</text>')
    box(792, 548, 290, 76, ROLE, "Global coordinator", "admits tasks, opens epochs,", "merges the zones’ models")
    pipe(left, 548, w, 30, "global.ledger", "tasks, epochs, merges", LEDGER)
    pipe(left, 592, w, 30, "global.models, .tasks, .metrics, …", "")
    box(28, 560, 176, 72, ROLE, "Scheduler", "what comes first; beside", "it the evaluator: scores")
    arrow(840, 492, 840, 544, 11)
    arrow(792, 563, right + 4, 563, 11)
    arrow(792, 607, right + 4, 607, path=False)
    arrow(left - 2, 590, 208, 590, path=False)
    says = (
        (
            "announce",
            "register",
            "Admitted, then the answer",
            "upload",
            "read, judge, add",
            "sum and bitmap",
            "Committed",
            "receipt",
        ),
        ("the round closed: add up", "the new model, then Finalised", "the epoch closed: merge, then Merged"),
    )
    number = 0
    for i, line in enumerate(says):
        x, y = 38, 664 + 28 * i
        for words in line:
            number += 1
            out.append(
                f'<circle cx="{x}" cy="{y - 5}" r="10" fill="{PATH}"/><text class="n" x="{x}" y="{y - 1}" text-anchor="middle">{number}</text>'
            )
            out.append(f'<text x="{x + 15}" y="{y}" style="font-size:13.5px">{escape(words)}</text>')
            x += 46 + round(7.0 * len(words))
    marks = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
        for name, colour in (("p", PATH), ("q", QUIET))
    )
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1110 720" role="img" aria-label="Roles, topics, and the path of one delta">'
    return "\n".join([head, f"<style>{STYLE}</style><defs>{marks}</defs>", *out, "</svg>", ""])


if __name__ == "__main__":
    Path(__file__).parents[1].joinpath("architecture.svg").write_text(draw())
