"""`olearning topics`: the topic table for a person, as JSON, as an AsyncAPI document, or as the page docs/topics.md."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer

from olearning.asyncapi import ROLES, asyncapi, carried, kept, partitions, tag
from olearning.errors import USAGE, Trouble
from olearning.hosting import emit
from olearning.meanings import about, meaning, reachable
from olearning.options import AsJson, show
from schemas.topics import COMMAND, GLOBAL, TABLE, Kind
from schemas.wire import Message


def list_topics(
    as_json: AsJson = False,
    as_asyncapi: Annotated[bool, typer.Option("--asyncapi", help="An AsyncAPI 3 document, as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The page docs/topics.md.")] = False,
) -> None:
    """Every topic there is: its key, what it carries, who writes and who reads it."""
    if as_json + as_asyncapi + markdown > 1:
        raise Trouble("--json, --asyncapi and --markdown: choose one", USAGE)
    if as_asyncapi:
        emit(document())
    elif markdown:
        emit(page())
    else:
        show([row(k) for k in TABLE] if as_json else _table())


def document() -> str:
    """The AsyncAPI document as text."""
    return json.dumps(asyncapi(), indent=1, ensure_ascii=False)


def name(kind: Kind) -> str:
    """The form of its topics' names."""
    zone = GLOBAL if kind.scopes == (GLOBAL,) else "<zone>"
    return ".".join(filter(None, ("<namespace>", zone, kind.what, "<task>" * kind.per_task)))


def row(kind: Kind) -> dict[str, Any]:
    """A row of the table in plain values."""
    return {
        "topic": name(kind),
        "key": kind.key,
        "partitions": kind.partitions,
        "compact": kind.compact,
        "retention_ms": kind.retention,
        "carries": carries(kind),
        "about": kind.about,
        "writers": list(kind.writers),
        "readers": list(kind.readers),
    }


def carries(kind: Kind) -> list[str]:
    """The names of the messages it carries, each once: two ledgers have facts in common."""
    return list(dict.fromkeys(tag(m) for m in kind.carries))


def _table() -> Any:
    from olearning.screen import titled

    out = titled("Topics", "topic", "key", "kept", "writes", "reads")
    for column in out.columns[1:]:
        column.no_wrap = False
    for k in TABLE:
        who = (", ".join(k.writers), ", ".join(k.readers))
        out.add_row(name(k).removeprefix("<namespace>."), k.key, _kept(k), *who)
    return out


# ------------------------------------------------------------------ the page


def page() -> str:
    """All of it for a reader, as Markdown."""
    return "\n".join(_lines()).rstrip("\n")


def _lines() -> Iterator[str]:
    yield from (
        "# Topics",
        "",
        "Every topic of a plane, from the topic table in `schemas/topics.py`, which also creates them. This page is made by",
        "`olearning topics --markdown`, [asyncapi.json](asyncapi.json) (AsyncAPI 3) by `olearning topics --asyncapi`; a test looks that both",
        "say what the table says. How to look into a topic: [stream-tools.md](stream-tools.md).",
        "",
        "A name is `<namespace>.<zone>.<what>`, with `global` in the zone's place for what belongs to all, and with `.<task>` at the end",
        "where a task has a topic of its own. Values are MessagePack maps; the key `type` says which message it is. Every record has the",
        "headers `content-type` (`application/msgpack`) and `schema-version`; what a ledger record led to also has `cause`, as",
        "`ledger@offset`, and where traces are on `traceparent` ([telemetry.md](telemetry.md)). Kept for ever means: until what nobody needs any more is cut, by the plane itself (ledgers and checkpoints) or by",
        "a person (models: `olearning prune`). Of a topic that keeps the last of each key, a record without a value, a tombstone, says that nothing is kept",
        "under its key any more: `olearning prune --topics` writes them for tasks that are over.",
        "",
        "| who | is |",
        "|---|---|",
    )
    for role, words in ROLES.items():
        yield f"| {role} | {words} |"
    yield from (
        "",
        "Whoever only looks (`olearning status`, `tail`, `verify`, the live page) may read every topic.",
        "",
    )
    yield from ("| topic | key | partitions | kept | writes | reads |", "|---|---|---|---|---|---|")
    for k in TABLE:
        many = "1" if k.partitions == "one" else "P"
        yield f"| [{k.what}](#{k.what}) | {k.key} | {many} | {_kept(k)} | {', '.join(k.writers)} | {', '.join(k.readers)} |"
    yield from (
        "",
        "`P`: as many as the zone has, 8 by default, fixed for its life: shard *i* is partition *i* of each.",
        "",
    )
    yield from ("## The topics", "")
    for k in TABLE:
        yield from _topic(k)
    yield from ("## The messages", "")
    messages = carried()
    for kind in messages:
        yield from _fields(kind, f"{tag(kind)} message")
    yield from ("## Parts of messages", "")
    for part in sorted(set(reachable(messages)) - set(messages), key=lambda c: str(c.__name__)):
        yield from _fields(part, f"{part.__name__} part")


def _kept(kind: Kind) -> str:
    if kind.compact:
        return "last of each key"
    if not kind.carries:
        return "–"
    return "for ever" if kind.retention is None else f"{kind.retention // 86_400_000} d"


def _topic(kind: Kind) -> Iterator[str]:
    yield from (f"### {kind.what}", "", f"`{name(kind)}`: {kind.about}.", "")
    if len(kind.scopes) > 1:
        yield from (f"Each zone has one, and the globe: `<namespace>.{GLOBAL}.{kind.what}`.", "")
    yield from (f"- Key: {kind.key}. {partitions(kind)} {kept(kind)}",)
    if kind.bulk:
        yield "- Bulk: it travels on clients of its own, and may lie on a cluster of its own."
    if kind.writers:
        yield f"- Written by {_who(kind.writers)}; read by {_who(kind.readers) or 'whoever looks'}."
    if kind.carries:
        yield "- Carries " + ", ".join(f"[{m}](#{m}-message)" for m in carries(kind)) + "."
    yield ""


def _who(roles: tuple[str, ...]) -> str:
    return ", ".join("a command" if r == COMMAND else f"`{r}`" for r in roles)


def _fields(kind: type[Any], title: str) -> Iterator[str]:
    yield from (f"### {title}", "")
    yield from (*about(kind).splitlines(), "")
    fields = msgspec.structs.fields(kind)
    if not fields:
        return
    inside = "message" if issubclass(kind, Message) else "part"
    yield from ("| field | type | if left out | meaning |", "|---|---|---|---|")
    for f in fields:
        said = meaning(kind, f.name) or f"(above, of the {inside})"
        yield f"| `{f.encode_name}` | {_type(msgspec.inspect.type_info(f.type))} | {_default(f)} | {_cell(said)} |"
    yield ""


def _default(field: Any) -> str:
    if field.required:
        return "–"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    text = value if isinstance(value, str) else json.dumps(msgspec.to_builtins(value))
    return "its defaults" if isinstance(value, msgspec.Struct) else f"`{text}`" if text else "empty"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _type(t: msgspec.inspect.Type) -> str:
    match t:
        case msgspec.inspect.IntType():
            return "int"
        case msgspec.inspect.StrType():
            return "text"
        case msgspec.inspect.FloatType():
            return "float"
        case msgspec.inspect.BoolType():
            return "bool"
        case msgspec.inspect.NoneType():
            return "nothing"
        case msgspec.inspect.BytesType() | msgspec.inspect.MemoryViewType():
            return "bytes"
        case msgspec.inspect.LiteralType(values):
            return " or ".join(map(str, values))
        case msgspec.inspect.StructType(cls) if issubclass(cls, Message):
            return f"[{cls.__name__}](#{tag(cls)}-message)"
        case msgspec.inspect.StructType(cls):
            return f"[{cls.__name__}](#{cls.__name__.lower()}-part)"
        case msgspec.inspect.UnionType(types):
            return " or ".join(map(_type, types))
        case msgspec.inspect.DictType(key, value):
            return f"map of {_type(key)} to {_type(value)}"
        case msgspec.inspect.TupleType(items):
            return "(" + ", ".join(map(_type, items)) + ")"
        case msgspec.inspect.VarTupleType(item) | msgspec.inspect.ListType(item):
            return f"list of {_type(item)}"
        case msgspec.inspect.Metadata(type=inner):
            return _type(inner)
    raise TypeError(f"no words for {t!r}")
