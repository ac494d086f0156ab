"""What does not fit a type, in words for who wrote the file: msgspec's own are for who wrote the type."""

import re

import msgspec

from schemas.wire import SLUG

KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "object": "a table",
    "array": "a list",
    "null": "nothing",
}


def misfit(e: msgspec.ValidationError) -> str:
    """Where, and what is wanted there: "rounds.demand: expected a whole number, got text"."""
    text, _, at = str(e).partition(" - at `$")
    at = at.rstrip("`").lstrip(".").replace("[...]", "")
    text = text.replace(f"`str` matching regex {SLUG!r}", "1 to 63 of a-z, 0-9 and '-', no '-' at either end")
    text = re.sub(r"^Object missing required field `(.*)`$", r"\1 is missing", text)
    text = re.sub(r"^Object contains unknown field `(.*)`$", r"\1 is not a setting here", text)
    text = re.sub(r"`([a-z]+(?: \| [a-z]+)*)`", _kinds, text)
    text = re.sub("^Expected ", "expected ", text)
    return f"{at}: {text}" if at and not text.startswith(at) else text


def _kinds(found: re.Match[str]) -> str:
    names = found[1].split(" | ")
    return " or ".join(KINDS[n] for n in names) if KINDS.keys() >= set(names) else found[0]
