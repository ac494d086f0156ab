"""What a message and each of its fields mean, in the words of the code: docstrings, and those below for names that mean the same everywhere."""

import ast
import inspect
import re
import textwrap
from functools import cache
from typing import Any

import msgspec

from schemas.wire import Message

WORDS = {
    "abilities": "what the device reports of itself, by name",
    "accuracy": "the share of held-out samples that the model gets right, 0 to 1",
    "adapt": "how far devices may depart from training and upload",
    "args": "its settings, by name",
    "arriving": "bytes of deltas that arrive, a second",
    "at": "when it was said, epoch ms",
    "backlog": "bytes of deltas that are not aggregated",
    "base": "the model that a round begins from",
    "below": "by bound, how many devices do not meet it",
    "beta1": "the optimiser's decay of the mean",
    "beta2": "the optimiser's decay of the second moment",
    "bitmap": "where the bitmap of what was counted lies",
    "bits": "by base round, the bitmap",
    "block": "which block of the model, from 0",
    "blocks": "blocks of the model: which, how many, or where each lies",
    "by": "who says so",
    "bytes": "how many bytes",
    "came": "how many devices came since the registry began to read",
    "cause": "the ledger record that it comes from",
    "checksum": "xxh3 of the block's bytes",
    "choice": "of each layer, the modules that it is to have",
    "counted": "blocks that count",
    "counts": "blocks by outcome",
    "data": "the data's name; in a block, its bytes",
    "data_args": "arguments of the data's function, by name",
    "deadline": "when it ends at the latest, epoch ms",
    "deadline_s": "seconds after which it ends at the latest",
    "demand": "so many deltas are wanted",
    "device": "the device's pseudonym",
    "devices": "how many devices",
    "distribute": "how versions go out",
    "done": "slots all of whose blocks are counted now",
    "drift": "how far a model's loss may rise",
    "duplicate": "blocks that were counted before",
    "end": "the offset at which it ends, not in it any more",
    "enough": "how many are enough to go on",
    "epoch": "the epoch, counted from 1",
    "epochs": "the passes over the data; in a task, its epochs",
    "every": "after how many records a checkpoint may be made; 0: never",
    "exponent": "integers stand for multiples of 2^(exponent + unit)",
    "grace": "ms that a round waits for more once its demand is met",
    "grace_s": "seconds that a round waits for more once its demand is met",
    "hash": "of the fold's canonical bytes",
    "heaviest": "the largest weight of a delta",
    "holder": "the process that takes the seats",
    "importance": "of each layer, how important its modules are for the device's data, in units of 2^-10",
    "incomplete": "blocks of deltas that were given up",
    "invalid": "blocks that cannot be",
    "keep": "the share of a block's values that top-k sends",
    "key": "the record's key",
    "lapsed": "slots whose lease is over",
    "largest": "|w·δ| is at most this",
    "late": "blocks of rounds that are too old",
    "layers": "of each module layer, its modules, the residual one last",
    "layout": "the model's tensors, and the blocks they are cut into",
    "learning_rate": "the step's size",
    "lease": "ms for which a device holds its slot",
    "lease_s": "seconds for which a device holds its slot",
    "ledger": "the ledger's identity",
    "left": "how many devices left since the registry began to read",
    "life": "a name for one start of a process, never used twice",
    "limits": "what a delta may be",
    "loss": "loss, in nats a sample; where it is a whole number, its sum in millionths",
    "lost": "the offset of the `Lost` that is given up",
    "manifest": "where the blocks of a model version lie",
    "minimum": "so many devices at least, or the round fails",
    "model": "the model's name",
    "model_args": "arguments of the model's function, by name",
    "modules": "how the model is cut into modules, and what devices may have of it",
    "momentum": "the share of the last step that goes on",
    "ms": "for how many ms",
    "name": "its name",
    "needs": "what a device must have",
    "norm": "the Euclidean norm of what changed",
    "offset": "an offset of the log",
    "open": "whether a round is open",
    "optimiser": "the optimiser's name; in a fact, where its state lies",
    "order": "the tasks, best first",
    "outcome": "counted, duplicate, late, invalid or incomplete",
    "outcomes": "blocks by outcome",
    "over_commit": "devices at work at once, as a multiple of the demand",
    "parameters": "how many weights it has",
    "partition": "a partition of the topic",
    "partitions": "how many partitions the zone's topics have",
    "places": "how many devices may hold a slot at once; of a checkpoint, where its pieces lie",
    "policy": "the sharing policy's name",
    "progress": "the task's progress in the zone (OLearning, eq. 2)",
    "public": "bounds that the plane compares with what devices report",
    "quota": "what it may have at most",
    "ranges": "stretches of logs, [from, to)",
    "reason": "why, in words",
    "retry_ms": "ms after which to try again",
    "round": "the round, counted in its zone from 1",
    "rounds": "the rounds; in an epoch, how many",
    "rules": "the version of the fold's rules; of a plan, its rules in order",
    "samples": "how many samples",
    "seats": "the seats, a shard or -1 for the leadership, each with the token it replaces",
    "seed": "what all that is drawn begins from",
    "server": "what the mean of the deltas does to the model",
    "shape": "its dimensions",
    "shards": "by shard, the token of its claim",
    "shared": "what every sub-model has",
    "shares": "a share of each",
    "sharing": "the policy and its settings",
    "sizes": "how many values each block has",
    "slot": "the device's place in the round",
    "slots": "the places given",
    "source": "who says it; in a fact, what it cites",
    "spec": "the task",
    "staleness": "how many rounds old the base of a delta may be",
    "start": "the offset at which it begins",
    "starved": "how many rounds in a row got too few devices",
    "states": "how many devices are in which state",
    "stop": "when the task ends before its last epoch",
    "stretches": "by shard, what of its log this covers",
    "submission": "the offset of the record it decides on",
    "sums": "by block, where its sum lies",
    "task": "the task",
    "tasks": "tasks, or how many",
    "tau": "the optimiser's floor under the root",
    "tenant": "the tenant",
    "tenants": "by tenant, how it stands",
    "tensors": "the model's tensors, in order",
    "token": "the ledger offset of the claim that it is said under",
    "topic": "the topic's name",
    "training": "what a device does with its data in a round",
    "turns": "the tasks that devices take, with their shares",
    "unit": "integers stand for multiples of 2^unit",
    "unread": "blocks that lie in the log unread",
    "updates": "what the zones did",
    "upload": "how devices write their deltas",
    "value": "the record's value",
    "version": "the model's version",
    "wanted": "run, pause or stop; of aggregators, how many the load calls for",
    "weight": "how much it weighs",
    "weights": "the sum of weights by block; of tenants, what each weighs",
    "what": "what is lost, in words",
    "why": "why, in words",
    "worth": "what the round is worth to devices",
    "zone": "the zone",
    "zones": "the zones",
}


def about(kind: type) -> str:
    """Its docstring in one paragraph each."""
    return inspect.cleandoc(kind.__doc__ or "")


@cache
def notes(kind: type) -> dict[str, str]:
    """By field, the docstring below it."""
    (cls,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(cls, ast.ClassDef)
    out = {}
    for above, below in zip(cls.body, cls.body[1:], strict=False):
        match above, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                out[name] = " ".join(text.split())
    return out


def meaning(kind: type, name: str) -> str:
    """Of one field: its own docstring, else what its type's docstring says of it ("" here: it stands there), else the word's meaning.
    Raises `KeyError` if nobody says."""
    if own := notes(kind).get(name):
        return own
    if re.search(rf"`{name}`", kind.__doc__ or ""):
        return ""
    return WORDS[name]


def reachable(kinds: tuple[type[Message], ...]) -> list[type[Any]]:
    """These types and all parts of them, each once, in the order they are met."""
    out: dict[type, None] = {}

    def walk(node: Any) -> None:
        match node:
            case msgspec.inspect.StructType(cls=cls, fields=fields) if cls not in out:
                out[cls] = None
                for f in fields:
                    walk(f.type)
            case _ if not isinstance(node, msgspec.inspect.StructType):
                for attribute in ("types", "item_types", "item_type", "key_type", "value_type", "type"):
                    inner = getattr(node, attribute, None)
                    for x in inner if isinstance(inner, tuple) else (inner,):
                        if isinstance(x, msgspec.inspect.Type):
                            walk(x)

    for kind in kinds:
        walk(msgspec.inspect.type_info(kind))
    return list(out)
