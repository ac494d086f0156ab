"""The topic table as an AsyncAPI 3 document: channels, the messages they carry, and which role sends and receives them."""

from typing import Any

import msgspec

from olearning.meanings import about, meaning, reachable
from schemas.topics import COMMAND, DEFAULT_PARTITIONS, GLOBAL, TABLE, Kind
from schemas.tracing import TRACE_PARENT
from schemas.wire import CONTENT_TYPE, MAJOR, Message

BINDING = "0.5.0"
"""The version of AsyncAPI's Kafka bindings."""
ROLES = {
    "global": "the global coordinator",
    "zone": "a zone's coordinator",
    "aggregator": "an aggregator",
    "scheduler": "the scheduler",
    "evaluator": "the evaluator",
    "modules": "who derives sub-models of modular tasks",
    "fleet": "an edge, with the devices behind it: a simulated fleet, or a gateway",
    COMMAND: "a person at the command line (`submit`, `update`, `pause`, `tenant set`, `abandon`, …)",
}


def carried() -> tuple[type[Message], ...]:
    """Every message of the table, once."""
    return tuple({t: None for kind in TABLE for t in kind.carries})


def tag(message: type[Message]) -> str:
    """The message's name on the wire."""
    return str(message.__struct_config__.tag)


def asyncapi() -> dict[str, Any]:
    """The document, in plain values."""
    messages = carried()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "OLearning on Kafka",
            "version": f"{MAJOR}.0.0",
            "license": {"name": "Apache-2.0"},
            "description": (
                "Every topic of a plane. Made from its topic table by `olearning topics --asyncapi`. Values are plain MessagePack "
                "maps; the key `type` says which message it is. Unknown fields are ignored; another major `schema-version` is "
                "refused. Maps whose keys are numbers (shards, slots) have whole numbers as keys in MessagePack, text in JSON."
            ),
        },
        "defaultContentType": CONTENT_TYPE.decode(),
        "servers": {
            "kafka": {
                "host": "localhost:9092",
                "protocol": "kafka",
                "description": "Apache Kafka 4. Bulk topics may lie on a cluster of their own.",
            }
        },
        "channels": {kind.what: _channel(kind) for kind in TABLE},
        "operations": {name: operation for kind in TABLE for name, operation in _operations(kind)},
        "components": {
            "messages": {tag(m): _message(m) for m in messages},
            "schemas": _schemas(messages),
        },
    }


def _channel(kind: Kind) -> dict[str, Any]:
    zone = "A zone's name." if "zone" in kind.scopes else f"Always `{GLOBAL}`."
    if len(kind.scopes) > 1:
        zone = f"A zone's name, or `{GLOBAL}`."
    parameters = {
        "namespace": {"description": "The plane's name.", "default": "olearning"},
        "zone": {"description": zone} | ({} if "zone" in kind.scopes else {"enum": [GLOBAL], "default": GLOBAL}),
    }
    if kind.per_task:
        parameters["task"] = {"description": "The task's name."}
    return {
        "address": ".".join(["{namespace}", "{zone}", kind.what, *(["{task}"] if kind.per_task else [])]),
        "summary": f"{kind.about[0].upper()}{kind.about[1:]}.",
        "description": f"Key: {kind.key}. {partitions(kind)} {kept(kind)}",
        "parameters": parameters,
        "messages": {tag(m): {"$ref": f"#/components/messages/{tag(m)}"} for m in kind.carries},
        "bindings": {
            "kafka": {
                "partitions": DEFAULT_PARTITIONS if kind.partitions == "zone" else 1,
                "topicConfiguration": {
                    "cleanup.policy": ["compact" if kind.compact else "delete"],
                    "retention.ms": -1 if kind.retention is None else kind.retention,
                },
                "bindingVersion": BINDING,
            }
        },
    }


def partitions(kind: Kind) -> str:
    """How many partitions it has, in words."""
    if kind.partitions == "one":
        return "One partition."
    return f"As many partitions as the zone has ({DEFAULT_PARTITIONS} by default)."


def kept(kind: Kind) -> str:
    """How long records stay, in words."""
    if kind.compact:
        return "The last record of each key is kept."
    if kind.retention is None:
        return "Kept until the plane itself cuts or drops it." if kind.carries else "It stays empty."
    days = kind.retention // 86_400_000
    return f"Kept for {days} day{'s' if days > 1 else ''}."


def _operations(kind: Kind) -> list[tuple[str, dict[str, Any]]]:
    if not kind.carries:
        return []
    channel = {"$ref": f"#/channels/{kind.what}"}
    said = [(role, "send", "writes") for role in kind.writers] + [(role, "receive", "reads") for role in kind.readers]
    return [
        (
            f"{role}-{verb}-{kind.what}",
            {"action": action, "channel": channel, "summary": f"{role} {verb} {kind.what}", "tags": [{"name": role}]},
        )
        for role, action, verb in said
    ]  # fmt: skip


def _message(message: type[Message]) -> dict[str, Any]:
    return {
        "name": tag(message),
        "title": message.__name__,
        "summary": about(message),
        "contentType": CONTENT_TYPE.decode(),
        "headers": {
            "type": "object",
            "properties": {
                "content-type": {"type": "string", "const": CONTENT_TYPE.decode()},
                "schema-version": {"type": "string", "description": f"The major version, {MAJOR}."},
                "cause": {"type": "string", "description": "The ledger record it comes from, `ledger@offset`, if it has one."},
                TRACE_PARENT: {"type": "string", "description": "Its place in the trace of its round (W3C), where traces are on."},
            },
            "required": ["content-type", "schema-version"],
        },
        "payload": {"$ref": f"#/components/schemas/{message.__name__}"},
    }  # fmt: skip


def _schemas(messages: tuple[type[Message], ...]) -> dict[str, Any]:
    """By name the JSON schema (draft 7) of each message and of each part of one, with what fields mean."""
    _, found = msgspec.json.schema_components(messages, ref_template="#/components/schemas/{name}")
    kinds = {k.__name__: k for k in reachable(messages)}
    out = {}
    for name, schema in sorted(found.items()):
        schema = _draft7(schema)
        if kind := kinds.get(name):
            schema["description"] = about(kind)
            for f in msgspec.structs.fields(kind):
                if said := meaning(kind, f.name):
                    schema["properties"][f.encode_name]["description"] = said
        out[name] = schema
    return out


def _draft7(node: Any) -> Any:
    """What msgspec writes by a later draft: tuples, what stands beside a reference, and bytes (in MessagePack they are no text)."""
    match node:
        case {"contentEncoding": "base64"}:
            return {"type": "string", "format": "binary"}
        case {"$ref": ref, **more}:
            return {"allOf": [{"$ref": ref}], **_draft7(more)} if more else {"$ref": ref}
        case {"prefixItems": [*items], **more}:
            return _draft7(more) | {"items": [_draft7(x) for x in items]}
        case dict():
            return {k: _draft7(v) for k, v in node.items()}
        case list() | tuple():
            return [_draft7(v) for v in node]
    return node
