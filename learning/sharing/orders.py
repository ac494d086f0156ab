"""Policies that put the jobs in one order for all devices (Propius' `sched_alg`; `platforms.md` §3.5)."""

from collections.abc import Mapping, Sequence

from learning.sharing.groups import everyone
from learning.sharing.policy import Job, Market, policy
from schemas.sharing import Rule
from schemas.wire import Scalar


def _by(market: Market, key: dict[str, float]) -> Sequence[Rule]:
    """The least first; ties by registration."""
    jobs = sorted((job for job in market.jobs if job.open), key=lambda job: (key[job.task], job.since, job.task))
    return [everyone([job.task for job in jobs])] if jobs else []


@policy("fifo")
def fifo(settings: Mapping[str, Scalar], market: Market) -> Sequence[Rule]:
    """First come, first served: by registration."""
    return _by(market, {job.task: 0.0 for job in market.jobs})


@policy("random")
def random(settings: Mapping[str, Scalar], market: Market) -> Sequence[Rule]:
    """A score for each job, drawn once: by the seed and its name, so it stays when others come and go."""
    return _by(market, {job.task: float(market.draw(job.task)) for job in market.jobs})


@policy("srsf", settings={"of": "round"})
def srsf(settings: Mapping[str, Scalar], market: Market) -> Sequence[Rule]:
    """Smallest remaining service first: of the "round", d - a; of the "task", that and d for each round that remains."""
    if settings["of"] not in ("round", "task"):
        raise ValueError(f'of is "round" or "task", not {settings["of"]!r}')
    whole = settings["of"] == "task"
    return _by(market, {job.task: float(job.open + (job.wanted * _left(job) if whole else 0)) for job in market.jobs})


def _left(job: Job) -> int:
    """Rounds after this one; as many as are done where it is not known."""
    return max(0, job.of - job.rounds - 1) if job.of else job.rounds


@policy("srtf", settings={"round_s": 300.0})
def srtf(settings: Mapping[str, Scalar], market: Market) -> Sequence[Rule]:
    """Shortest remaining time first: (R - r) · T / r; where no round is done one takes `round_s`; where R is not known, T."""
    round_s = float(settings["round_s"])
    if round_s <= 0:
        raise ValueError(f"round_s is a number of seconds above 0, not {round_s:g}")

    def remains(job: Job) -> float:
        if not job.of:
            return job.ran_s
        return max(0, job.of - job.rounds) * (job.ran_s / job.rounds if job.rounds else round_s)

    return _by(market, {job.task: remains(job) for job in market.jobs})


@policy("las")
def las(settings: Mapping[str, Scalar], market: Market) -> Sequence[Rule]:
    """Least attained service: device-rounds that it had."""
    return _by(market, {job.task: float(job.service) for job in market.jobs})
