"""Shared phones: each is bound to one job at a time, every binding is accounted for, and where policies differ it shows."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from experiments.sharing import DISCARDS, KEEPS, MEASURES, POLICIES, gains, show, table
from experiments.sharing_jobs import Way
from experiments.sharing_run import Sharing
from experiments.sharing_world import DAY, TEN, TWENTY, Phones, Want, quotas, wants

N = 120


def crowd(count: int = N, seconds: int = DAY, classes: int = 7, speed: int = 40) -> Phones:
    """Phones free all day, every third of them strong; or in turns of 10 minutes, where `seconds` is less."""
    strong = np.arange(count) % 3 == 0
    abilities = np.where(strong[:, None], [9.0, 8.0, 1500.0, 12.0, 20.0], [4.0, 4.0, 500.0, 5.0, 5.0])
    kind = np.where(strong, classes, 4)
    starts = np.arange(0, DAY, 2 * seconds)
    windows = sorted((int(start), int(start) + seconds, i) for start in starts for i in range(count))
    a, b, who = np.array(windows).T
    compute = np.where(strong, speed, 3 * speed).astype(float)
    return Phones(abilities, kind, compute, np.full(count, 10.0), a, b, who)


def jobs(*of: tuple[str, int], rounds: int = 6, fill: float = 300.0, serve: float = 400.0) -> list[Want]:
    return [Want(n, kind, demand, rounds, 100 * n, fill, serve) for n, (kind, demand) in enumerate(of)]


def went(
    policy: str, phones: Phones | None = None, wanted: list[Want] | None = None, keeps: bool = True, seed: int = 0
) -> Sharing:
    wanted = wanted or jobs(("H", 10), ("M", 12), ("L", 40), ("L", 20))
    return Sharing(phones or crowd(), wanted, Way(policy, keeps=keeps), seed, 1.0, DAY, log=True).run()


def twice(log: list[tuple[int, int, int, int]]) -> int:
    """How often a phone began something before it had ended what it did."""
    count, until = 0, Counter[int]()
    for phone, _, start, end in sorted(log, key=lambda b: (b[2], b[3])):
        count += start < until[phone]
        until[phone] = max(end, until[phone])
    return count


# ------------------------------------------------------------------ the accounts


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("seconds", [DAY, 600])
def test_every_binding_is_accounted_for_and_no_phone_works_twice(policy, keeps, seconds):
    of = went(policy, crowd(seconds=seconds), keeps=keeps)
    c, log = of.counts, of.log
    assert log
    assert not twice(log)
    assert c["counted"] == c["bindings"] - c["gone"] - c["surplus"] - c["discarded"]
    assert len(log) == c["bindings"] <= c["handshakes"]
    kinds = {job.want.number: job.bit for job in of.jobs}
    assert all(of.phones.kind[phone] >> kinds[number] & 1 for phone, number, _, _ in log), "it meets the job's needs"
    free = {(int(w), int(a)): int(b) for a, b, w in zip(of.phones.starts, of.phones.ends, of.phones.who, strict=True)}
    for phone, _, start, end in log:
        assert any(w == phone and a <= start and end <= b for (w, a), b in free.items() if w == phone)
    r = of.result()
    assert r["rounds"] == sum(job.done for job in of.jobs)
    if not r["unfinished"]:
        assert r["rounds"] == sum(job.want.rounds for job in of.jobs)
        assert c["counted"] >= 0.8 * sum(job.want.demand * job.done for job in of.jobs)
    assert 0 < r["utilisation"] <= 1
    assert r["useful"] <= r["busy"] <= 1 + 1e-9


def test_control_a_phone_that_works_twice_is_seen():
    assert twice([(1, 0, 5, 10), (1, 1, 9, 12)]) == 1
    assert twice([(1, 0, 5, 10), (2, 1, 9, 12), (1, 1, 10, 12)]) == 0


def test_the_same_seed_is_the_same_run_and_another_is_not():
    one, same, other = (went("max-min", seed=seed) for seed in (4, 4, 5))
    assert one.log == same.log != other.log
    assert one.result() == same.result()


def test_a_round_takes_as_long_as_it_must():
    """20 phones for 10, no one else: the tenth is back after 50 s; then the next round begins."""
    of = went("fifo", crowd(60), jobs(("H", 10), rounds=3))
    (job,) = of.jobs
    assert list(job.serves) == [50.0] * 3
    assert job.ended == 1 + 3 * 50 or job.ended == 3 * 50
    assert of.counts["bindings"] == 3 * 13
    assert of.counts["surplus"] == 0, "all are as fast: who was selected over the demand is back in the same second"


# ------------------------------------------------------------------ rounds that time out


def test_what_came_is_kept_or_all_is_thrown_away():
    """12 strong phones for a demand of 13: never all, but more than 0.8 of them."""
    wanted = jobs(("H", 13), rounds=2, fill=60, serve=100)
    kept, thrown = (went("fifo", crowd(36), wanted, keeps=k) for k in (True, False))
    assert [job.done for job in kept.jobs] == [2]
    assert kept.counts["counted"] == kept.counts["bindings"] == 24, "though they are idle again before the time is out"
    assert [job.done for job in thrown.jobs] == [0]
    assert thrown.counts["counted"] == 0 < thrown.counts["discarded"]


def test_so_it_is_where_results_are_late():
    """Of 26 phones for a demand of 20, 7 are too slow: 19 come in time."""
    some = crowd(26)
    some = replace(some, compute_s=np.where(np.arange(26) % 4, 40.0, 300.0))
    kept, thrown = (went("fifo", some, jobs(("L", 20), rounds=1, serve=100), keeps=k) for k in (True, False))
    assert (kept.jobs[0].done, kept.counts["counted"], kept.counts["surplus"]) == (1, 19, 7)
    assert thrown.jobs[0].done == thrown.counts["counted"] == 0


def test_fewer_than_enough_do_not_count():
    of = went("fifo", crowd(27), jobs(("H", 13), rounds=2, fill=60, serve=100))
    assert of.counts["counted"] == 0 < of.result()["tries"]


def test_a_phone_that_goes_away_gives_back_its_place():
    """Each takes 130 s and is free for 100 s every 200: nobody ever ends, places come back and are taken again."""
    slow = replace(crowd(60, seconds=100), compute_s=np.full(60, 120.0))
    wanted = jobs(("L", 10), rounds=1, fill=50, serve=2000)
    ours, theirs = (went("fifo", slow, wanted, keeps=k) for k in (True, False))
    per_round = [of.counts["bindings"] / of.result()["tries"] for of in (ours, theirs)]
    assert per_round[1] == 13
    assert per_round[0] > 55, "nearly all of the 60, each once"


# ------------------------------------------------------------------ policies


def test_control_the_policy_matters_where_phones_are_scarce():
    """Weak phones can do L alone, and strong ones are as many as H wants. L is first by registration, and takes some of them."""
    wanted = [replace(w, arrives=0) for w in jobs(("L", 24), ("H", 16), rounds=1)]
    fifo, irs = (went(policy, crowd(63), wanted).jobs[1].ended for policy in ("fifo", "irs"))
    assert fifo > 1.3 * irs
    fifo, irs = (went(policy, crowd(600), wanted).jobs[1].ended for policy in ("fifo", "irs"))
    assert fifo == irs, "where they are ample it is no matter"


def test_random_binding_costs_handshakes():
    of = went("random-binding")
    assert of.counts["handshakes"] > 2 * of.counts["bindings"]
    assert went("fifo").counts["handshakes"] == went("fifo").counts["bindings"]


def test_a_static_phone_works_for_one_job_alone():
    of = went("static")
    by_phone: dict[int, set[int]] = {}
    for phone, number, _, _ in of.log:
        by_phone.setdefault(phone, set()).add(number)
    assert max(map(len, by_phone.values())) == 1
    assert max(len({n for p, n, _, _ in went("irs").log if p == phone}) for phone in range(N)) > 1


def test_quotas_are_by_demand():
    kind = np.array([7] * 3600 + [4] * 2400)
    bound = quotas(wants(TEN, 0, 1), kind, np.random.default_rng(0))
    assert (bound >= 0).all()
    counts = np.bincount(bound, minlength=10)
    assert counts[:6].tolist() >= [207, 414, 828, 207, 414, 828]
    assert counts[9] >= 1655
    assert (kind[np.isin(bound, range(6))] == 7).all()


# ------------------------------------------------------------------ the set-up


def test_jobs_are_those_of_the_profile():
    ten, twenty = wants(TEN, 0, 150), wants(TWENTY, 0, 150)
    assert sum(j.demand for j in ten) == 1450
    assert sum(j.demand for j in twenty) == 2500
    assert [j.arrives for j in ten][:4] == [0, 11305, 7337, 9820]
    assert [ten[0].places, ten[0].fill_within_s, twenty[0].fill_within_s] == [65, 100, 120]
    assert twenty[19].arrives == 0
    assert {j.number for j in wants(TEN, 3, 150)} == set(range(10))
    assert [j.arrives for j in wants(TEN, 3, 150)] != [j.arrives for j in ten]
    assert max(j.arrives for j in wants(TEN, 0, 30)) == pytest.approx(max(j.arrives for j in ten) / 5, abs=5)


# ------------------------------------------------------------------ what is shown


def result(**more) -> dict:
    return {
        "took": [3600, 7200], "utilisation": 0.5, "useful": 0.4, "bindings": 7200, "counted": 3600, "hours": 1.0,
        "handshakes": 14400, "tries": 3, "rounds": 2, "unfinished": 0,
    } | more  # fmt: skip


def test_the_tables_have_mean_and_spread_and_gains_seed_by_seed(tmp_path):
    setting = ("10 jobs", "scarce", KEEPS)
    found = {
        (*setting, "static"): [result(utilisation=0.25), result(utilisation=0.1)],
        (*setting, "fifo"): [result(), result(took=[7200, 7200])],
        (*setting, "irs"): [result(took=[1800, 3600]), result(took=[3600, 3600])],
        ("20 jobs", "ample", DISCARDS, "irs"): [result()],
    }
    text = table(found, setting)
    assert "| irs | 0.88 ± 0.18 (2) |" in text
    assert "| fifo | 1.75 ± 0.35 (2) |" in text
    row = next(line for line in gains(found, setting).splitlines() if line.startswith("| irs |"))
    cells = dict(zip(["", *gains(found, setting).splitlines()[0].split(" | ")[1:]], row.split(" | "), strict=True))
    assert cells["utilisation over static"] == "3.50 ± 2.12 (2)"
    assert cells["completion over FIFO"] == "2.00 ± 0.00 (2)"
    assert cells["completion over random"] == "–"
    show(found, tmp_path)
    assert (tmp_path / "sharing.png").exists()
    assert (tmp_path / "sharing.svg").exists()
    assert "1.88" in (tmp_path / "table.md").read_text()
    assert MEASURES["p95, h"][0](result()) == pytest.approx(1.95)
