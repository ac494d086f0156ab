"""What a tenant asks for: a task, as its file says it and as `global.tasks` carries it."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from schemas.blocks import Layout, Manifest, codec
from schemas.misfit import misfit
from schemas.modules import Modules, Structure
from schemas.sharing import Needs
from schemas.wire import YEAR as YEAR
from schemas.wire import Count, Message, Part, Scalar, Slug

Positive = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=YEAR)]


class BadTask(ValueError):
    """A task that cannot be; the text says what to change."""


class Training(Part, frozen=True):
    """What a device does with its data in one round: `epochs` passes in batches of `batch`, by SGD or AdamW.

    With `steps` above 0 it takes that many batches instead, however much data it has: part of a pass, or some passes and a part.
    `momentum` is SGD's (a task file that gives it to AdamW is refused). `weight_decay` is added to SGD's gradient, and decoupled
    from it in AdamW (Loshchilov and Hutter, ICLR 2019), whose betas are 0.9 and 0.999. What an optimiser remembers begins anew in
    each round.
    """

    epochs: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 5
    batch: Positive = 10
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] = 0.1
    prox: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """FedProx' mu: each step also pulls towards the model the round began with (Li et al. 2020)."""
    optimiser: str = "sgd"
    momentum: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    steps: Annotated[int, msgspec.Meta(ge=0, le=10**6)] = 0

    def __post_init__(self) -> None:
        if self.optimiser not in ("sgd", "adamw"):
            raise ValueError(f"training.optimiser is sgd or adamw, not {self.optimiser!r}")

    def taken(self, samples: int) -> int:
        """The steps that a device with so many samples takes."""
        return self.steps or self.epochs * -(-samples // self.batch)

    def drawn(self, samples: int) -> int:
        """How many samples these steps draw, each as often as it is drawn."""
        whole, rest = divmod(self.taken(samples), -(-samples // self.batch) or 1)
        return whole * samples + min(rest * self.batch, samples)


class Rounds(Part, frozen=True):
    """A round inside a zone: `demand` deltas wanted, `minimum` needed, and the times it may take.

    Asynchronous (FedBuff) with `refill` above 0: `demand` is then the updates per version, demand × over-commit the devices
    at work at once, and as soon as `refill` of their places are free they are given anew. A delta may be based on a version
    `staleness` rounds old, and weighs 1/sqrt(1 + staleness). `atomic`: a delta counts whole or not at all.
    `partial`: a device may train a part of the model; its delta then has that part's blocks, which it names when it registers.
    """

    demand: Positive = 10
    over_commit: Annotated[float, msgspec.Meta(ge=1, le=10)] = 1.3
    minimum: Positive = 1
    deadline_s: Seconds = 60.0
    lease_s: Seconds = 20.0
    grace_s: Annotated[float, msgspec.Meta(ge=0, le=YEAR)] = 0.0
    refill: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 0
    staleness: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    atomic: bool = False
    partial: bool = False
    fill_s: Annotated[float, msgspec.Meta(ge=0, le=YEAR)] = 0.0
    """The scheduling time-out: a round that has not got its devices by then goes on with those it has. 0: none but the deadline."""
    serve_s: Annotated[float, msgspec.Meta(ge=0, le=YEAR)] = 0.0
    """The execution time-out, from when a round has its devices: it closes with the deltas that came. 0: none but the deadline."""

    @property
    def places(self) -> int:
        """How many devices may hold a slot at once: demand × over-commit, rounded up."""
        return ceil(round(self.demand * self.over_commit, 6))  # 100 × 1.1 is 110.00000000000001


class Epochs(Part, frozen=True):
    """`count` epochs; each ends when the zones that take part have done `rounds` rounds each (OLearning §4.2).

    Late zones: an epoch ends without them at `deadline_s` after it opened (0: it waits), or as soon as `enough` zones are done (0:
    all). With `window_s` above 0 an epoch is a window of time instead: at its end every zone finishes the round that it has open,
    and `rounds` is the most that a zone does in it. `zones`: how many take part, those that contribute most (0: all).
    """

    count: Positive = 2
    rounds: Positive = 5
    deadline_s: Annotated[float, msgspec.Meta(ge=0, le=YEAR)] = 3600.0
    enough: Annotated[int, msgspec.Meta(ge=0, le=10**6)] = 0
    window_s: Annotated[float, msgspec.Meta(ge=0, le=YEAR)] = 0.0
    zones: Annotated[int, msgspec.Meta(ge=0, le=10**6)] = 0

    def __post_init__(self) -> None:
        if self.window_s and 0 < self.deadline_s <= self.window_s:
            raise ValueError(
                f"epochs.deadline_s ({self.deadline_s:g}) is when an epoch ends at the latest: make it more than epochs.window_s "
                f"({self.window_s:g}), or 0"
            )
        if self.zones and self.enough > self.zones:
            raise ValueError(
                f"epochs.enough ({self.enough}) is more than the epochs.zones that take part ({self.zones})"
            )


class Stop(Part, frozen=True):
    """When a task ends before its last epoch (OLearning §7.1, "early exit"): looked at after each epoch, whichever comes first.

    A global model reaches `accuracy` or `loss` on held-out data; or `patience` epochs in a row did not lower its loss by more
    than `delta` (0: never); or no zone's reward, contribution × progress, is above `reward` any more (0: never). The first three
    need an evaluator; the next epoch waits `wait_s` for its word, and no longer.
    """

    accuracy: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    loss: Annotated[float, msgspec.Meta(ge=0)] | None = None
    patience: Annotated[int, msgspec.Meta(ge=0, le=10**6)] = 0
    delta: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    reward: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=YEAR)] = 60.0

    @property
    def by_score(self) -> bool:
        """Whether it needs to know how good the global models are."""
        return self.accuracy is not None or self.loss is not None or self.patience > 0


OPTIMISERS: Mapping[str, Mapping[str, float]] = {
    "fedavg": {"learning_rate": 1.0},
    "fedavgm": {"learning_rate": 1.0, "momentum": 0.9},
    "fedadam": {"learning_rate": 0.03, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3},
    "fedyogi": {"learning_rate": 0.03, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3},
    "fedadagrad": {"learning_rate": 0.03, "tau": 1e-3},
    "pyramidfl-yogi": {"learning_rate": 5e-3, "beta2": 0.999, "tau": 1e-3},
}
"""The server optimisers with their settings and what these are by default. `learning/optimisers.py` has the formulas."""
STRATEGIES: dict[str, Mapping[str, float]] = {}
"""Those of one's own that this process has loaded (`learning/strategies.py`), likewise."""
_Rate = Annotated[float, msgspec.Meta(gt=0, le=10**6)]
_Decay = Annotated[float, msgspec.Meta(ge=0, lt=1)]
_Number = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]


class Server(Part, frozen=True):
    """What the mean of the deltas does to the model: the server optimiser, and `at` which level it works.

    "zone": on each round's mean, with a state for each zone, which goes on across epochs; the globe then averages zones.
    "globe": on what an epoch changed the global model by; the rounds in the zones are then plain averages.
    A setting left out is the optimiser's own (`OPTIMISERS`); a task file with one that the optimiser does not have is refused.
    `args` are the settings of a strategy of one's own, which only those who do its step must know.
    """

    optimiser: Slug = "fedavg"
    at: str = "zone"
    learning_rate: _Rate | None = None
    beta1: _Decay | None = None
    beta2: _Decay | None = None
    tau: _Rate | None = None
    momentum: _Decay | None = None
    args: dict[str, _Number] = {}

    def __post_init__(self) -> None:
        if self.at not in ("zone", "globe"):
            raise ValueError(f"server.at is zone or globe, not {self.at!r}")

    @property
    def settings(self) -> dict[str, float]:
        """All settings of the optimiser: those given, and its own for the rest."""
        if self.optimiser not in OPTIMISERS:
            return {**STRATEGIES.get(self.optimiser, {}), **self.args}
        own = OPTIMISERS[self.optimiser]
        return {name: x if (given := getattr(self, name)) is None else given for name, x in own.items()}

    def working(self, at: str) -> "Server":
        """The optimiser there: this one, or plain averaging where this one does not work."""
        return self if self.at == at else Server()


class Limits(Part, frozen=True):
    """What a delta may be. A value stands for n · 2^unit; |w·δ| is at most `largest` (in model units)."""

    unit: Annotated[int, msgspec.Meta(ge=-40, le=0)] = -24
    largest: Annotated[float, msgspec.Meta(gt=0)] = 65536.0
    heaviest: Annotated[int, msgspec.Meta(ge=1, le=10**6)] = 10**6

    def __post_init__(self) -> None:
        if self.largest * 2.0**-self.unit > 2.0**62:
            raise ValueError(f"limits.largest ({self.largest:g}) is more than 2^62 units of 2^{self.unit}")


KEEP = 0.1
"""The share of values that top-k keeps if the task does not say."""


class Upload(Part, frozen=True):
    """How devices write their deltas (`docs/codecs.md`): by `codec`, `[top-k+]int{32,16,8}[+zstd]`, and with top-k the share of
    each block's values that they `keep`."""

    codec: str = "int32"
    keep: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None

    def __post_init__(self) -> None:
        if not codec(self.codec).sparse and self.keep is not None:
            raise ValueError(f"upload.keep is for a codec with top-k, not for {self.codec}: top-k+{self.codec} is one")

    @property
    def share(self) -> float:
        """The share of a block's values that is sent."""
        return (self.keep or KEEP) if codec(self.codec).sparse else 1.0

    def bytes(self, sizes: Sequence[int]) -> int:
        """How many bytes a delta with blocks of these sizes (in values) has at most."""
        how = codec(self.codec)
        raw = [how.size(n, self.share) for n in sizes]
        return sum(
            n + (n // 256 + 64 if how.packed else 0) for n in raw
        )  # zstd's own bound: what does not shrink grows


class Distribute(Part, frozen=True):
    """How versions go out. `differences`: beside its blocks, a version is also written as differences from the one before, where these
    are shorter (`docs/distribution.md` says from how many edges on that pays)."""

    differences: bool = False


class Adapt(Part, frozen=True):
    """How far a device may depart from `training` and `upload` to fit its memory, speed and link (`device_sim/adapt.py`). Left out, not
    at all.

    `batch_least`: where memory is short, batches may be as small as this (0: no smaller); `sample_kb`: what a sample of a batch takes
    in memory, as measured. `most_s`: a run, from the download to the last byte of the upload, is to take no longer (0: as long as it
    takes); for that a device may write by one of the `codecs` instead, and take fewer steps, but at least the share `steps_least`.
    Who cannot even so leaves the round to others.
    """

    batch_least: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 0
    sample_kb: Annotated[float, msgspec.Meta(ge=0, le=10**9)] = 0.0
    most_s: Annotated[float, msgspec.Meta(ge=0, le=YEAR)] = 0.0
    codecs: tuple[str, ...] = ()
    steps_least: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0

    def __post_init__(self) -> None:
        if bool(self.batch_least) != bool(self.sample_kb):
            raise ValueError("adapt.batch_least and adapt.sample_kb go together: what fits a memory must be known")
        if not self.most_s and (self.codecs or self.steps_least < 1):
            raise ValueError(
                "adapt.codecs and adapt.steps_least are for adapt.most_s, the seconds a run may take: give it"
            )
        for name in self.codecs:
            codec(name)


class TaskSpec(Part, frozen=True):
    """A task. `model` and `data` name what devices and `submit` know how to build; the plane reads neither."""

    task: Slug
    model: str
    data: str
    tenant: Slug = "default"
    model_args: dict[str, Scalar] = {}
    data_args: dict[str, Scalar] = {}
    training: Training = Training()
    rounds: Rounds = Rounds()
    epochs: Epochs = Epochs()
    stop: Stop = Stop()
    server: Server = Server()
    limits: Limits = Limits()
    upload: Upload = Upload()
    adapt: Adapt = Adapt()
    zones: tuple[Slug, ...] = ()
    needs: Needs = Needs()
    silent_s: Annotated[float, msgspec.Meta(ge=0, le=YEAR)] = 0.0
    """The task is stopped if its tenant says nothing of it for so long (`olearning task keep`). 0: never."""
    distribute: Distribute = Distribute()
    modules: Modules | None = None
    """None: the model is one piece."""

    def __post_init__(self) -> None:
        if self.modules and not self.rounds.partial:
            raise ValueError("modules: devices train parts of a modular model, so rounds.partial must be true")
        if len(set(self.zones)) < len(self.zones):
            raise ValueError(f"zones names one twice: {', '.join(self.zones)}")
        if any(codec(name).sparse for name in self.adapt.codecs) and not codec(self.upload.codec).sparse:
            raise ValueError(
                "adapt.codecs has one with top-k: upload.codec must be one as well, since upload.keep is for both"
            )
        if self.rounds.minimum > self.rounds.demand:
            raise ValueError(
                f"rounds.minimum ({self.rounds.minimum}) is more than rounds.demand ({self.rounds.demand})"
            )


Wanted = Literal["run", "pause", "stop"]
"""What a tenant wants of a task."""
CHANGEABLE = ("training", "rounds", "epochs", "stop")
"""The tables of a task that may change while it runs; of `rounds` not `refill`, `staleness`, `atomic` and `partial`."""


class Submission(Message, frozen=True):
    """`global.tasks`: a task with the layout of its model and where version 0 lies. A later record of a task that runs changes its
    settings, or what is `wanted` of it; `by` says who did. Any record is a sign of life of its tenant."""

    spec: TaskSpec
    layout: Layout
    manifest: Manifest
    seed: Count = 0
    wanted: Wanted = "run"
    by: Annotated[str, msgspec.Meta(max_length=200)] = ""
    enough: dict[Slug, Count] = {}
    """By zone, a round that its tenant ends early, with what came."""
    structure: Structure | None = None
    """What a modular model's parts cost: by that the plane derives sub-models, without the model's code."""


def fixed(old: TaskSpec, new: TaskSpec) -> str:
    """The first setting that cannot change while the task runs and differs, as text, or ""."""
    for name in TaskSpec.__struct_fields__:
        if name not in CHANGEABLE and getattr(old, name) != getattr(new, name):
            return name
    for name in ("refill", "staleness", "atomic", "partial"):
        if getattr(old.rounds, name) != getattr(new.rounds, name):
            return f"rounds.{name}"
    return ""


def parse(tree: dict[str, Any]) -> TaskSpec:
    """The task in a parsed task file. Raises `BadTask`, naming what is wrong and where."""
    no_strangers(tree, TaskSpec)
    if isinstance(tree.get("modules"), dict) and isinstance(tree.get("rounds", {}), dict):
        tree = tree | {"rounds": {"partial": True} | tree.get("rounds", {})}
    try:
        spec = msgspec.convert(tree, TaskSpec)
    except msgspec.ValidationError as e:
        raise BadTask(misfit(e)) from None
    if spec.training.optimiser != "sgd" and spec.training.momentum:
        raise BadTask(f"training.momentum is not a setting of {spec.training.optimiser}; sgd has it")
    return msgspec.structs.replace(spec, server=_server(spec.server, tree.get("server", {})))


def _server(server: Server, given: Mapping[str, Any]) -> Server:
    """The server as it travels. A strategy of one's own takes all its settings along: its code may change, the task does not."""
    name = server.optimiser
    if name not in OPTIMISERS and name not in STRATEGIES:
        raise BadTask(
            f"server.optimiser {name!r} is not known here; known: {', '.join([*OPTIMISERS, *STRATEGIES])}. If it is a strategy "
            "of your own, add --load and the file that has it"
        )
    own, where = (OPTIMISERS[name], "server") if name in OPTIMISERS else (STRATEGIES[name], "server.args")
    flat = {k: v for k, v in given.items() if k not in ("optimiser", "at", "args") and v is not None}
    for key in [k for k in flat if name in STRATEGIES or k not in own]:
        raise BadTask(f"server.{key} is not a setting of {name}; it has {', '.join(own) or 'none'} (in {where})")
    for key in server.args:
        if name in OPTIMISERS or key not in own:
            raise BadTask(
                f"server.args.{key} is not a setting of {name}; it has {', '.join(own) or 'none'} (in {where})"
            )
    return msgspec.structs.replace(server, args=server.settings) if name in STRATEGIES else server


def no_strangers(tree: dict[str, Any], kind: type, where: str = "") -> None:
    """Raises `BadTask` for a setting that the type has not, and names those that it has."""
    known = {f.name: f.type for f in msgspec.structs.fields(kind)}
    for key, value in tree.items():
        if key not in known:
            raise BadTask(f"{where}{key} is not a setting; known here: {', '.join(known)}")
        _inside(value, known[key], f"{where}{key}")


def _inside(value: Any, kind: Any, where: str) -> None:
    if get_origin(kind) is dict and isinstance(value, dict):
        for name, part in value.items():
            _inside(part, get_args(kind)[1], f"{where}.{name}")
    elif get_origin(kind) is tuple and isinstance(value, list):
        for n, part in enumerate(value):
            _inside(part, get_args(kind)[0], f"{where}[{n}]")
    elif isinstance(value, dict):
        kinds = [k for k in (kind, *get_args(kind)) if isinstance(k, type) and issubclass(k, msgspec.Struct)]
        if kinds:
            no_strangers(value, kinds[0], f"{where}.")
