"""How a message becomes bytes: plain MessagePack maps, typed and validated on the way in.

Every type that travels is a frozen `Message`. Its map carries its own name under "type", so a topic may carry several
types and any MessagePack viewer shows what it sees. Unknown fields are ignored; another major version is refused.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Annotated, Any, TypeVar

import msgspec
import xxhash
from msgspec import inspect

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


Order = Callable[[Any], Any]
_PLAIN = (
    inspect.NoneType, inspect.BoolType, inspect.IntType, inspect.FloatType, inspect.StrType, inspect.LiteralType,
    inspect.BytesType, inspect.MemoryViewType,
)  # fmt: skip


@cache
def _plan(kind: type) -> tuple[dict, tuple[tuple[str, Order], ...]] | None:
    """How a struct of this type is put in order: what its map begins with, and the fields that need it. None for one that can hold
    no map and no set, as blocks and slots cannot: no walk. Made of the types once, not of each value anew: folds of thousands of values are
    encoded at every checkpoint."""
    fields = inspect.type_info(kind).fields  # type: ignore[attr-defined]
    orders = tuple((f.name, order) for f in fields if (order := _order_of(f.type)))
    config = kind.__struct_config__  # type: ignore[attr-defined]
    return ({config.tag_field: config.tag} if config.tag_field else {}, orders) if orders else None


def _order_of(t: inspect.Type) -> Order | None:
    """What puts a value of this type in order; None if it always is."""
    match t:
        case inspect.Metadata(type=of):
            return _order_of(of)
        case inspect.StructType(cls=kind):
            return _ordered if _plan(kind) else None
        case inspect.DictType(value_type=of):
            return partial(_map, _order_of(of))
        case inspect.SetType() | inspect.FrozenSetType():
            return sorted
        case inspect.VarTupleType(item_type=of) | inspect.ListType(item_type=of):
            return partial(_row, order) if (order := _order_of(of)) else None
        case inspect.TupleType(item_types=types) | inspect.UnionType(types=types):
            return _ordered if any(map(_order_of, types)) else None
        case _ if isinstance(t, _PLAIN):
            return None
    return _ordered


def _map(order: Order | None, value: dict) -> dict:
    return {k: order(value[k]) for k in sorted(value)} if order else {k: value[k] for k in sorted(value)}


def _row(order: Order, values: Iterable[Any]) -> list:
    return [order(v) for v in values]


def _ordered(value: Any) -> Any:
    """`value` with every map in the order of its keys and every set sorted; msgspec itself orders only text keys."""
    if isinstance(value, msgspec.Struct):
        if (plan := _plan(type(value))) is None:
            return value
        tag, orders = plan
        out = tag | msgspec.structs.asdict(value)
        for field, order in orders:
            if part := out[field]:  # None, and what is empty, is in order
                out[field] = order(part)
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
