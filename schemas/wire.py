"""How a message becomes bytes: plain MessagePack maps, typed and validated on the way in.

Every type that travels is a frozen `Message`. Its map carries its own name under "type", so a topic may carry several
types and any MessagePack viewer shows what it sees. Unknown fields are ignored; another major version is refused.
"""

from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec
import xxhash

MAJOR = 1
CONTENT_TYPE = b"application/msgpack"

Headers = tuple[tuple[str, bytes], ...]
HEADERS: Headers = (("content-type", CONTENT_TYPE), ("schema-version", b"%d" % MAJOR))

YEAR = 366 * 86_400.0
"""Seconds; nothing that is set lasts longer."""
Count = Annotated[int, msgspec.Meta(ge=0)]
SLUG = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$(?!\n)"  # `$` alone lets a last line break pass
Slug = Annotated[str, msgspec.Meta(pattern=SLUG)]
Ident = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
"""Names of processes, devices and places."""
MOST_SEED = 2**63 - 1
"""What all that draws can begin from, and any message can say."""
Scalar = str | Annotated[int, msgspec.Meta(ge=-(2**63), le=MOST_SEED)] | float | bool


class Malformed(ValueError):
    """Bytes that are not a message their topic carries; the text says why."""


def kebab(name: str) -> str:
    """`EpochOpened` -> `epoch-opened`."""
    return "".join("-" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


class Part(msgspec.Struct, frozen=True):
    """A piece of a message."""


class Message(msgspec.Struct, frozen=True, tag_field="type", tag=kebab):
    """Something that travels on a topic by itself."""


_encoder = msgspec.msgpack.Encoder()
M = TypeVar("M")


def encode(message: Any) -> bytes:
    """The bytes of a message: the same message gives the same bytes, whatever the order its maps were filled in."""
    return _encoder.encode(_ordered(message))


@cache
def _to_order(kind: type) -> frozenset[str]:
    """The fields of a struct of this type that can hold a map or a set, they or a part of them. Blocks and slots have none, and where a
    fact lists thousands of them there is no walk."""
    inside = ((f.encode_name, repr(f.type)) for f in msgspec.inspect.type_info(kind).fields)  # type: ignore[attr-defined]
    return frozenset(name for name, held in inside if "DictType(" in held or "SetType(" in held or "AnyType(" in held)


def _ordered(value: Any) -> Any:
    """`value` with every map in the order of its keys and every set sorted; msgspec itself orders only text keys."""
    if isinstance(value, msgspec.Struct):
        if not (to_order := _to_order(type(value))):
            return value
        config = value.__struct_config__
        out: dict[str, Any] = {config.tag_field: config.tag} if config.tag_field else {}
        for f in value.__struct_fields__:
            held = getattr(value, f)
            out[f] = _ordered(held) if f in to_order else held
        return out
    if isinstance(value, dict):
        return {k: _ordered(value[k]) for k in sorted(value)}
    if isinstance(value, tuple | list):
        return [_ordered(v) for v in value]
    if isinstance(value, frozenset | set):
        return sorted(value)
    return value


@cache
def _decoder(types: tuple[type, ...]) -> msgspec.msgpack.Decoder:
    union: Any = types[0]
    for other in types[1:]:
        union = union | other
    return msgspec.msgpack.Decoder(union)


def decode(data: bytes | memoryview | None, types: tuple[type, ...], headers: Iterable[tuple[str, bytes]] = ()) -> Any:
    """The message in `data`, one of `types`; tensor bytes stay a view into `data`. Raises `Malformed`."""
    for key, value in () if headers == HEADERS else headers:
        if key == "schema-version" and (value or b"").split(b".")[0] != b"%d" % MAJOR:  # Kafka's may be null
            named = (value or b"")[:40].decode(errors="replace")
            raise Malformed(f"schema version {named} is not known here: this reads major {MAJOR}")
    if not data:
        raise Malformed("empty record")
    try:
        return _decoder(types).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise Malformed(str(e)[:300]) from None


def checksum(data: bytes | memoryview) -> int:
    """xxh3 of a block's bytes, 64 bits."""
    return xxhash.xxh3_64_intdigest(data)
