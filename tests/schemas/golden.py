"""Every message type that travels, fully populated, and the bytes it must have for ever.

    python -m tests.schemas.golden            says what differs from golden.json, and fails if anything does
    python -m tests.schemas.golden --write    says the same, then accepts it (`make golden`)

New bytes for an old type mean that roles of two releases no longer read each other: change the major version, or don't.
"""

import json
import sys
from pathlib import Path

from schemas import blocks, facts, messages, modules, sharing, task, topics
from schemas.wire import Message, encode

FILE = Path(__file__).with_name("golden.json")

_ref = messages.Ref(ledger="led-1", offset=70_000)
_place = blocks.Place(partition=3, offset=2**33, key="wine/7/0", checksum=2**64 - 1)
_difference = blocks.Difference(offset=2**34, base=2**63)
_manifest = blocks.Manifest(topic="demo.global.models", version=7, blocks=(_place,), differences=(_difference,))
_tensors = (
    blocks.Tensor(name="a.weight", shape=(2, 3), group="a"),
    blocks.Tensor(name="b.bias", shape=(4,), group="b"),
)
_layout = blocks.Layout(tensors=_tensors, sizes=(6, 4))
_training = task.Training(
    epochs=2, batch=32, learning_rate=0.05, prox=0.1, optimiser="adamw", momentum=0.9, weight_decay=0.01, steps=3
)
_spec = task.TaskSpec(
    task="wine",
    model="mlp",
    data="digits",
    tenant="acme",
    model_args={"width": 64, "act": "relu"},
    data_args={"alpha": 0.3, "iid": False},
    training=_training,
    rounds=task.Rounds(
        demand=20,
        over_commit=1.5,
        minimum=5,
        deadline_s=30.0,
        lease_s=10.0,
        grace_s=2.5,
        refill=2,
        staleness=3,
        atomic=True,
        partial=True,
        fill_s=12.0,
        serve_s=15.0,
    ),
    epochs=task.Epochs(count=3, rounds=4, deadline_s=600.0, enough=1, window_s=300.0, zones=2),
    stop=task.Stop(accuracy=0.9, loss=0.25, patience=3, delta=0.01, reward=0.001, wait_s=30.0),
    server=task.Server(
        optimiser="fedadam",
        at="globe",
        learning_rate=0.05,
        beta1=0.8,
        beta2=0.95,
        tau=0.01,
        momentum=0.5,
        args={"most": 0.25, "keep": 2.0},
    ),
    limits=task.Limits(unit=-20, largest=128.0, heaviest=5000),
    upload=task.Upload(codec="top-k+int8+zstd", keep=0.25),
    zones=("asia", "europe"),
    needs=sharing.Needs(public={"ram": 4.0, "cpu": 6.0}, private={"samples": 100.0}),
    adapt=task.Adapt(batch_least=2, sample_kb=64.5, most_s=90.0, codecs=("top-k+int8",), steps_least=0.5),
    silent_s=1800.0,
    distribute=task.Distribute(differences=True),
    modules=modules.Modules(
        modules=32,
        ratio=10.0,
        k=8,
        last=3,
        norm="group",
        hidden="run",
        transfer_s=12.5,
        sample_ms=40.0,
        memory=0.25,
        drift=0.5,
        window=5,
        gain=0.125,
    ),
)
_cost = modules.Cost(values=100, parameters=90, activations=70, macs=5000)
_structure = modules.Structure(shared=_cost, layers=((_cost, _cost),))
_tenant = sharing.Tenant(tenant="acme", weight=2.0, quota=sharing.Quota(tasks=3, devices=500, bytes=2**40), by="ann")
_sharing = sharing.Sharing(policy="irs", args={"tiers": 2}, by="ann")
_counts = facts.Counts(counted=5, duplicate=4, late=3, invalid=2, incomplete=1)
_update = facts.Update(
    zone="asia", round=9, manifest=_manifest, samples=1234, devices=20, loss=987654, progress=0.125, weights=(1234, 40)
)
_load = messages.TaskLoad(
    task="wine",
    round=4,
    blocks=10,
    bytes=2**20,
    outcomes={"late": 1, "counted": 9},
    unread=3,
    waiting={10: messages.Waiting(start=7, end=9, ms=1500), 9: messages.Waiting(start=1, end=2)},
    size=2**17,
)

EXAMPLES: tuple[Message, ...] = (
    blocks.ModelBlock(task="wine", version=7, block=1, data=memoryview(b"\x00\x00\x80\x3f")),
    blocks.DifferenceBlock(task="wine", version=7, block=1, base=2**63, data=memoryview(b"\x01\x00\x00\x00")),
    blocks.DeltaBlock(
        task="wine", round=4, slot=2, device="d-1", block=1, codec="int32", exponent=3, weight=50, samples=50, loss=123456,
        data=memoryview(b"\x01\x00\x00\x00"),
    ),
    blocks.SumBlock(task="wine", round=4, block=1, data=memoryview(b"\x01\x00\x00\x00\x00\x00\x00\x80")),
    blocks.Counted(task="wine", round=4, blocks=2, bits={10: b"\x80", 9: b"\xff\x01"}),
    blocks.FoldBlock(ledger="led-1", offset=3000, block=1, data=memoryview(b"\x81\xa1a\x01")),
    facts.Founded(ledger="led-1", zone="asia", partitions=8, rules=7, every=1000),
    facts.Rules(n=2),
    facts.Checkpoint(token=5, offset=3000, hash=2**64 - 1, places=(_place,), cut=1000),
    facts.Claimed(holder="agg-1", life="6f1e", seats={10: 0, 2: 17, facts.LEADERSHIP: 300}),
    facts.Opened(
        token=5, task="wine", round=4, epoch=1, source=_ref, base=_manifest, demand=20, places=30, minimum=5,
        deadline=1_800_000_030_000, grace=2500, lease=10_000, staleness=1, sizes=(6, 4), unit=-20, largest=2**27, heaviest=5000,
        refill=2, fraction=10, atomic=True, hold=2**26, tenant="acme", cost=2**21, fill=1_800_000_012_000, serve=15_000,
        worth=facts.Worth(contribution=0.5, progress=0.25, starved=1, reward=0.25), training=_training, partial=True,
        upload=_spec.upload,
    ),
    facts.Admitted(
        token=5, after=11, ranges={10: (0, 4), 9: (2, 3)}, slots=(facts.Slot(task="wine", round=4, slot=2, device="d-1", blocks=b"\x80"),),
        lapsed=(facts.Lapsed(task="wine", round=4, slot=1),),
    ),
    facts.Committed(
        task="wine", round=4, stretches={10: facts.Stretch(token=17, start=0, end=9), 9: facts.Stretch(token=3, start=1, end=7)},
        counts=_counts, done=(facts.Done(round=4, slot=2),), weights=(250, 200), samples=50, loss=123456, bitmap=_place,
        sums=(_place, None), held={10: (facts.Held(offset=8, round=4, slot=3, block=1),)}, released={9: (0, 2)},
        voided=(facts.Done(round=3, slot=1),),
    ),
    facts.Closed(token=5, task="wine", round=4, why="demand", ends={10: 9, 9: 7}),
    facts.Finalised(
        token=5, task="wine", round=4, commits=(12, 14), devices=20, samples=900, loss=123456, norm=0.75, manifest=_manifest,
        optimiser=_manifest,
    ),
    facts.Lost(token=5, seat=10, task="wine", what="retention", ranges={10: (9, 40)}, commits=(12,), short=(10,)),
    facts.Abandoned(task="wine", lost=77, by="ann", reason="the disk is gone"),
    facts.Retired(token=5, task="wine", source=_ref),
    facts.ZoneJoined(token=6, zone="asia", ledger="led-1", partitions=8),
    facts.TaskAdmitted(
        token=6, spec=_spec, layout=_layout, manifest=_manifest, zones=("asia", "europe"), seed=42, submission=3,
        structure=_structure,
    ),
    facts.TaskUpdated(token=6, task="wine", submission=13, spec=_spec, wanted="pause", by="ann", enough={"asia": 4}),
    facts.TaskRefused(token=6, submission=12, task="wine", reason="no zone called 'mars'"),
    facts.TenantSet(token=6, submission=2, tenant=_tenant),
    facts.SharingSet(token=6, submission=3, sharing=_sharing),
    facts.WishRefused(token=6, submission=4, key=".sharing", reason="no policy called 'luck'"),
    facts.EpochOpened(token=6, task="wine", epoch=1, manifest=_manifest, zones=("asia",)),
    facts.Taken(token=6, task="wine", epoch=1, ranges={"europe": (0, 40), "asia": (3, 50)}, updates=(_update,)),
    facts.EpochClosed(token=6, task="wine", epoch=1, why="all", ends={"europe": 40, "asia": 50}),
    facts.Merged(
        token=6, task="wine", epoch=1, manifest=_manifest, samples=1234, norm=0.5, optimiser=_manifest,
        contributions={"europe": 0.75, "asia": 0.25},
    ),
    facts.Scored(token=6, task="wine", epoch=1, accuracy=0.875, loss=0.5),
    facts.TaskEnded(token=6, task="wine", why="epochs done"),
    _tenant,
    _sharing,
    sharing.SharingPlan(
        zone="asia", at=1_800_000_000_000, policy="irs", chosen=True,
        rules=(sharing.Rule(
            turns=(sharing.Turn(share=0.5, tasks=("wine", "beer")), sharing.Turn(share=0.5, tasks=("beer",))),
            meets=({"ram": 4.0},), lacks=({"cpu": 9.0},),
        ),),
    ),
    task.Submission(
        spec=_spec, layout=_layout, manifest=_manifest, seed=42, wanted="stop", by="ann", enough={"asia": 4}, structure=_structure
    ),
    modules.Profile(
        device="d-1", task="wine", asked=2, importance=((1000, 24),), bytes=2**20, memory=2**28, macs=2**30, batch=32
    ),
    modules.Submodel(device="d-1", task="wine", asked=2, profile=7, below=5, choice=((0, 3, 15),), why="too little memory"),
    messages.CheckIn(device="d-1", abilities={"ram": 8.0, "cpu": 7.5}, gone=True),
    messages.Announcement(
        task="wine", tenant="acme", round=4, open=True, cause=_ref, model="mlp", model_args={"width": 64}, data="digits",
        data_args={"alpha": 0.3}, training=_training, sizes=(6, 4), unit=-20, largest=128.0, base=_manifest,
        deadline=1_800_000_030_000, seed=42, staleness=3, codec="top-k+int8", keep=0.25,
        reward=0.125, lease=10_000, serve=15_000, over=True, needs=_spec.needs, adapt=_spec.adapt, modules=_spec.modules,
        partial=True,
    ),
    messages.Registration(device="d-1", task="wine", round=4, abilities={"ram": 8.0, "cpu": 7.5}, blocks=b"\x80"),
    messages.Admission(device="d-1", task="wine", round=4, slot=2, lease_until=1_800_000_010_000, cause=_ref, blocks=b"\x80"),
    messages.Refusal(device="d-1", task="wine", round=4, reason="full", retry_ms=5000, cause=_ref),
    messages.Receipt(device="d-1", task="wine", round=4, slot=2, outcome="counted", blocks=(0, 1), offsets=(7, 8)),
    messages.DeadLetter(
        topic="demo.asia.deltas.wine", partition=3, offset=8, reason="empty record", by="agg-1", key=b"d-1", value=b"\xc1"
    ),
    messages.AggregatorReport(source="agg-1", zone="asia", at=1_800_000_000_000, shards={10: 17, 9: 3}, tasks=(_load,)),
    messages.Priorities(
        source="sched-1", zone="asia", at=1_800_000_000_000, order=("wine", "beer"), why={"wine": "8 MB/s arrive", "beer": "by name"},
        weights={"acme": 2.5},
    ),
    messages.SchedulerReport(
        source="sched-1", zone="asia", at=1_800_000_000_000, workers=2, wanted=3, arriving=2**23, backlog=2**30, capacity=2**28,
        why="much waits",
    ),
    messages.Credits(
        source="sched-1", zone="asia", at=1_800_000_000_000, rate=2**24, shares={"fleet-2": 2**23, "fleet-1": 2**22}, other=2**21,
        why="much waits",
    ),
    messages.FleetReport(
        source="fleet-1", zone="asia", at=1_800_000_000_000, states={"idle": 3, "busy": 1}, blocks=9, bytes=900, fetched=2**20,
        handed=2**22, waiting=2**19, left=2, local=messages.LocalTime(hours=21.5, day=60_000), busy=1,
        elsewhere={"europe": 2**10},
    ),
    messages.RegistryReport(
        source="global-1",
        at=1_800_000_000_000,
        zones={
            "europe": messages.Presence(
                devices=7, came=9, left=2, eligible={"wine": messages.Eligible(devices=3, below={"ram": 4, "os": 1})}
            )
        },
    ),
    messages.TenantsReport(
        source="global-1",
        at=1_800_000_000_000,
        policy="irs",
        tenants={
            "acme": messages.Standing(
                weight=2.5,
                quota=sharing.Quota(tasks=3, devices=40, bytes=2**33),
                tasks=2,
                devices=17,
                bytes=2**30,
            )
        },
    ),
    messages.Objection(source="fleet-1", at=1_800_000_000_000, task="wine", reason="no model 'oak' is known here"),
    messages.Evaluation(
        source="eval-1", at=1_800_000_000_000, task="wine", epoch=1, version=7, accuracy=0.875, loss=0.5, samples=360
    ),
)  # fmt: skip


def tag(message: Message | type[Message]) -> str:
    """The name a message type bears on the wire."""
    return str(message.__struct_config__.tag)


BY_TAG = {tag(m): m for m in EXAMPLES}
TRAVELS = {tag(t): t for kind in topics.TABLE for t in kind.carries}


def topic_name(kind: topics.Kind, scope: str) -> str:
    zone = topics.GLOBAL if scope == topics.GLOBAL else "asia"
    return topics.topic("demo", zone, kind.what, "wine" if kind.per_task else "").name


ROUTES = [
    (topic_name(kind, scope), t) for kind in topics.TABLE for scope in kind.scopes for t in dict.fromkeys(kind.carries)
]
"""Every topic with every type it carries."""


def stored() -> dict[str, str]:
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def main() -> int:
    old = stored()
    new = {name: encode(m).hex() for name, m in sorted(BY_TAG.items())}
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            print(f"{name}\n  was {old.get(name, 'not there')}\n  is  {new.get(name, 'gone')}")
    if old == new:
        print(f"{len(new)} types, none differs")
        return 0
    if "--write" not in sys.argv:
        print("\nnothing written; --write accepts this")
        return 1
    FILE.write_text(json.dumps(new, indent=1) + "\n")
    print(f"\nwritten: {FILE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
