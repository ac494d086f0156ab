"""The global ledger: zones, tasks and their epochs, tenants and how they share."""

from typing import Any

from msgspec.structs import replace

from schemas.blocks import last
from schemas.facts import (
    EpochClosed,
    EpochOpened,
    Merged,
    Scored,
    SharingSet,
    Taken,
    TaskAdmitted,
    TaskEnded,
    TaskRefused,
    TaskUpdated,
    TenantSet,
    Update,
    WishRefused,
    ZoneJoined,
)
from schemas.sharing import SHARING
from schemas.task import fixed
from streams.ledger import chains
from streams.ledger.chains import Void
from streams.ledger.states import GlobalOver, GlobalTask, Globe, Joined, Score


def joined(g: Globe, at: int, time: int, f: ZoneJoined) -> Globe:
    chains.lead(g, f.token)
    chains.require(f.zone not in g.zones, f"zone {f.zone} is in already")
    return replace(g, zones={**g.zones, f.zone: Joined(ledger=f.ledger, partitions=f.partitions)})


def task_admitted(g: Globe, at: int, time: int, f: TaskAdmitted) -> Globe:
    chains.lead(g, f.token)
    chains.require(not g.knows(f.spec.task), f"the name {f.spec.task} is used")
    chains.require(bool(f.zones) and all(z in g.zones for z in f.zones), "it names zones that are not there")
    t = GlobalTask(
        spec=f.spec,
        layout=f.layout,
        manifest=f.manifest,
        zones=f.zones,
        admitted_at=at,
        seed=f.seed,
        taken=dict.fromkeys(f.zones, 0),
        submission=f.submission,
        first=f.manifest,
        heard=time,
        structure=f.structure,
    )
    refused = {k: v for k, v in g.refused.items() if k != f.spec.task}
    return replace(g, tasks={**g.tasks, f.spec.task: t}, refused=refused)


def silent(t: GlobalTask, time: int) -> bool:
    """Whether at this time, of the ledger's clock (ms), the task's tenant has said nothing of it for too long."""
    return t.spec.silent_s > 0 and time - t.heard >= 1000 * t.spec.silent_s


def task_updated(g: Globe, at: int, time: int, f: TaskUpdated) -> Globe:
    t = _task(g, f, "admitted", "open", "closed", "merged")
    chains.require(t.wanted != "stop", f"{f.task} is stopped")
    if f.submission == t.submission and (f.spec, f.wanted, f.enough) == (t.spec, "stop", {}):
        chains.require(
            silent(t, time), f"submission {t.submission} holds for {f.task}, and its tenant was heard of at {t.heard}"
        )
        return replace(g, tasks={**g.tasks, f.task: replace(t, wanted="stop", by=f.by)})
    chains.require(f.submission > t.submission, f"submission {t.submission} holds for {f.task}")
    what = fixed(t.spec, f.spec)
    chains.require(not what, f"{what} of {f.task} cannot change")
    enough = {**t.enough, **{z: max(n, t.enough.get(z, 0)) for z, n in f.enough.items()}}
    new = replace(t, spec=f.spec, wanted=f.wanted, by=f.by, submission=f.submission, heard=time, enough=enough)
    return replace(g, tasks={**g.tasks, f.task: new})


def task_refused(g: Globe, at: int, time: int, f: TaskRefused) -> Globe:
    chains.lead(g, f.token)
    last, t = g.refused.get(f.task), g.tasks.get(f.task)
    chains.require(f.task not in g.over, f"{f.task} is over")
    chains.require(t is None or t.submission < f.submission, f"{f.task} is admitted")
    chains.require(last is None or last.submission < f.submission, f"submission {f.submission} is refused before")
    tasks = {**g.tasks, f.task: replace(t, heard=time)} if t else g.tasks
    return replace(g, tasks=tasks, refused={**g.refused, f.task: f})


def _wish(g: Globe, f: TenantSet | SharingSet | WishRefused, key: str) -> None:
    """Records of `global.tenants` under one key are dealt with in order, each once."""
    chains.lead(g, f.token)
    newest = g.dealt(key)
    chains.require(f.submission > newest, f"record {newest} of {key} is dealt with already")


def tenant_set(g: Globe, at: int, time: int, f: TenantSet) -> Globe:
    _wish(g, f, f.tenant.tenant)
    return replace(g, tenants={**g.tenants, f.tenant.tenant: f})


def sharing_set(g: Globe, at: int, time: int, f: SharingSet) -> Globe:
    _wish(g, f, SHARING)
    return replace(g, sharing=f)


def wish_refused(g: Globe, at: int, time: int, f: WishRefused) -> Globe:
    _wish(g, f, f.key)
    return replace(g, wishes={**g.wishes, f.key: f})


def _task(g: Globe, f: Any, *states: str) -> GlobalTask:
    chains.lead(g, f.token)
    t = g.tasks.get(f.task)
    if t is None or t.state not in states:
        state = t.state if t else "ended" if f.task in g.over else "unknown"
        raise Void(f"{f.task} is {state}, not {' or '.join(states)}")
    return t


def epoch_opened(g: Globe, at: int, time: int, f: EpochOpened) -> Globe:
    t = _task(g, f, "admitted", "merged")
    chains.require(f.epoch == t.epoch + 1, f"epoch {t.epoch} is the last")
    chains.require(f.manifest == t.manifest, "it does not start from the last global model")
    chains.require(set(f.zones) <= set(t.zones), "it names zones that are not the task's")
    part = f.zones or t.zones
    new = replace(t, state="open", epoch=f.epoch, opened_at=at, opened_time=time, updates={}, ends={}, part=part)
    new = replace(new, waited={z: 0 if z in part else t.waited.get(z, 0) + 1 for z in t.zones})
    return replace(g, tasks={**g.tasks, f.task: new})


def taken(g: Globe, at: int, time: int, f: Taken) -> Globe:
    t = _task(g, f, "open", "closed")
    chains.require(f.epoch == t.epoch, f"epoch {t.epoch} is the present one")
    taken, updates = dict(t.taken), dict(t.updates)
    for zone, (start, end) in f.ranges.items():
        chains.require(taken.get(zone) == start <= end, f"zone {zone} is taken up to {taken.get(zone)}")
        chains.require(t.state == "open" or end <= t.ends[zone], f"the epoch ends at {t.ends.get(zone)} in zone {zone}")
        taken[zone] = end
    for u in f.updates:
        chains.require(u.zone in f.ranges, f"the update of zone {u.zone} is from no range")
        chains.require(len(u.weights) in (0, len(t.layout.sizes)), f"the update of zone {u.zone} weighs other blocks")
        if old := updates.get(u.zone):
            u = _both(old, u, len(t.layout.sizes))
        updates[u.zone] = u
    return replace(g, tasks={**g.tasks, f.task: replace(t, taken=taken, updates=updates)})


def _both(old: Update, new: Update, blocks: int) -> Update:
    """What a zone did in two stretches of its ledger."""
    weights: tuple[int, ...] = ()
    if old.weights or new.weights:
        weights = tuple(a + b for a, b in zip(old.weigh(blocks), new.weigh(blocks), strict=True))
    samples, devices, loss = (getattr(old, n) + getattr(new, n) for n in ("samples", "devices", "loss"))
    return replace(new, samples=samples, devices=devices, loss=loss, weights=weights)


def epoch_closed(g: Globe, at: int, time: int, f: EpochClosed) -> Globe:
    t = _task(g, f, "open")
    chains.require(f.epoch == t.epoch, f"epoch {t.epoch} is the present one")
    chains.require(sorted(f.ends) == sorted(t.zones), "it does not name the ends of all zones")
    chains.require(all(f.ends[z] >= t.taken[z] for z in t.zones), "it ends before what is taken")
    return replace(g, tasks={**g.tasks, f.task: replace(t, state="closed", ends=f.ends)})


def merged(g: Globe, at: int, time: int, f: Merged) -> Globe:
    t = _task(g, f, "closed")
    chains.require(f.epoch == t.epoch, f"epoch {t.epoch} is the present one")
    chains.require(all(t.taken[z] >= t.ends[z] for z in t.zones), "not all zones are taken to their ends")
    new = replace(t, state="merged", manifest=f.manifest or t.manifest, optimiser=f.optimiser or t.optimiser)
    new = replace(new, contributions=f.contributions or t.contributions, merged_time=time, fresh=f.manifest is not None)
    return replace(g, tasks={**g.tasks, f.task: new})


def scored(g: Globe, at: int, time: int, f: Scored) -> Globe:
    t = _task(g, f, "merged")
    chains.require(f.epoch == t.epoch and t.fresh, f"epoch {t.epoch} is the last")
    chains.require(t.score is None or t.score.epoch < f.epoch, f"epoch {f.epoch} is scored before")
    score = Score(epoch=f.epoch, accuracy=f.accuracy, loss=f.loss)
    better = t.best is None or f.loss < t.best.loss - t.spec.stop.delta
    return replace(g, tasks={**g.tasks, f.task: replace(t, score=score, best=score if better else t.best)})


def task_ended(g: Globe, at: int, time: int, f: TaskEnded) -> Globe:
    """What came of it stays, and that its name is used; a fact of it is void from here on, whoever says it."""
    t = _task(g, f, "admitted", "merged")
    over = GlobalOver(
        at=at,
        time=time,
        tenant=t.spec.tenant,
        zones=t.zones,
        epoch=t.epoch,
        epochs=t.spec.epochs.count,
        rounds=t.spec.epochs.rounds,
        submission=t.submission,
        why=f.why,
        model=last(t.manifest),
    )
    tasks, refused = ({k: x for k, x in of.items() if k != f.task} for of in (g.tasks, g.refused))
    return replace(g, tasks=tasks, refused=refused, over={**g.over, f.task: over})
