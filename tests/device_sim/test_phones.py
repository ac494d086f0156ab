"""What phones can do: from a file of the known form, from the default, and what of it is reported."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.capacity import Bandwidth
from device_sim.pace import Phone
from device_sim.phones import STEPS, UsualPhones, phones, reported
from device_sim.population import Population
from schemas.sharing import ABILITIES, meets


@pytest.fixture
def file(tmp_path):
    """As the AI Benchmark's table, with columns of no use here beside it."""
    path = tmp_path / "phones.npz"
    np.savez(
        path,
        cpu_f=np.array([20.2, 6.1, 1.7], np.float32),
        ram=np.array([16, 6, 0.75], np.float32),
        fp16_mem=np.array([2100, 1031, 431], np.float32),
        android_os=np.array([13, 11, 7.1], np.float32),
        device=np.array(["Phone 7", "Zen 10", "Old"]),
    )
    return path


def test_a_device_draws_a_phone_of_the_file(file):
    there = phones(file)
    drawn = [tuple(there.of(1, f"d-{i}").values()) for i in range(300)]
    assert {d[2] for d in drawn} == {2100.0, 1031.0, 431.0}
    assert all(70 < [d[2] for d in drawn].count(m) < 130 for m in (2100, 1031, 431))
    assert list(there.of(1, "d-0")) == ["cpu", "ram", "memory", "os"]
    assert there.of(1, "d-0") == there.of(1, "d-0")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"ram": None}, "no array ram: it has"),
        ({"ram": np.array([1.0])}, "ram has 1 entries and cpu_f 3"),
        ({"cpu_f": np.array([])}, "cpu_f has 0 entries"),
        ({"cpu_f": np.array([1.0, -1.0, 2.0])}, "cpu_f has numbers below 0"),
        ({"android_os": np.array([1.0, np.nan, 2.0])}, "android_os is not a row of numbers"),
    ],
)
def test_a_file_that_is_none_is_refused_with_what_is_wrong(file, tmp_path, change, why):
    with np.load(file) as f:
        arrays = {k: f[k] for k in f.files} | change
    bad = tmp_path / "bad.npz"
    np.savez(bad, **{k: a for k, a in arrays.items() if a is not None})
    with pytest.raises(ValueError, match=f"bad.npz: {why}"):
        phones(bad)
    with pytest.raises(ValueError, match="no such file"):
        phones(tmp_path / "nowhere.npz")


def test_usual_phones_are_as_able_as_those_they_stand_for():
    """Shares of the AI Benchmark's 952 that meet Propius' rules (`baselines.md` §3): 39 %, 25 %, 50 %, 95 %."""
    drawn = [reported(UsualPhones().of(5, f"d-{i}")) for i in range(20_000)]
    for bounds, share in (
        ((7, 6, 900, 7), 0.39),
        ((9, 6, 1200, 8), 0.25),
        ((6, 4, 800, 6), 0.50),
        ((0, 2, 400, 4), 0.95),
    ):
        needs = dict(zip(ABILITIES, bounds, strict=False))
        assert abs(sum(meets(p, needs) for p in drawn) / len(drawn) - share) < 0.06
    assert UsualPhones().of(5, "a") == UsualPhones().of(5, "a") != UsualPhones().of(6, "a")


def test_what_is_reported_is_rounded_down_and_few_things_are_said():
    said = reported({"cpu": 6.19, "ram": 5.9, "memory": 1031.0, "os": 7.1, "bandwidth": 23.4})
    assert said == {"cpu": 6.0, "ram": 5.0, "memory": 1000.0, "os": 7.0, "bandwidth": 20.0}
    assert reported({"cpu": 0.06, "ram": 0.75}) == {}
    assert reported({"memory": 1200.0, "cpu": 9.0}) == {"cpu": 9.0, "memory": 1200.0}


@given(st.floats(1, 1e9))
def test_nobody_promises_what_it_has_not(x):
    said = reported({"cpu": x})["cpu"]
    assert said <= x * (1 + 1e-8)
    assert x / said <= 1.5
    mantissa = said / 10.0 ** np.floor(np.log10(said) + 1e-9)
    assert min(abs(mantissa - s) for s in STEPS) < 1e-6


def test_a_population_reports_what_was_asked_for_and_nothing_by_default(file):
    assert all(d.abilities == {} for d in Population("z", 5).devices())
    usual = Population("z", 50, phones="usual").devices()
    assert {name for d in usual for name in d.abilities} == {"cpu", "ram", "memory", "os"}
    assert [d.abilities for d in usual] == [d.abilities for d in Population("z", 50, phones="usual").devices()]
    linked = Population("z", 50, phones=str(file), capacity="usual").devices()
    for d in linked:
        assert isinstance(d.pace, Phone)
        assert d.pace.capacity.kbit_s >= 1000 * d.abilities.get("bandwidth", 0.0)
    assert any("bandwidth" in d.abilities for d in linked)


def test_of_a_changing_bandwidth_the_mean_is_reported():
    series = Bandwidth(np.array([0.0, 10.0, 40.0]), np.array([30.0, 6.0, 0.0]))
    assert series.mean_mbps == pytest.approx((10 * 30 + 30 * 6) / 70)
