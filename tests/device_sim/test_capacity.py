"""How fast devices are: from files of the known forms, from the default, and what a transfer over a series takes."""

import math
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sim.capacity import Bandwidth, Capacity, Usual, bandwidths, capacities, constant


def series(*steps: tuple[float, float]) -> Bandwidth:
    at, mbps = zip(*steps, strict=True)
    return Bandwidth(np.array(at, float), np.array(mbps, float))


# ------------------------------------------------------------------ speed


@pytest.fixture
def file(tmp_path):
    """As FedScale's: whole ms, kbit/s, and arrays of another length beside them."""
    path = tmp_path / "capacity.npz"
    np.savez(
        path,
        computation_ms_per_sample=np.array([10, 20, 40], np.uint16),
        communication_kbps=np.array([100, 200, 400], np.float32),
        har_client_samples=np.arange(5),
    )
    return path


def test_a_device_draws_an_entry_of_the_file(file):
    there = capacities(file)
    known = {Capacity(10.0, 100.0), Capacity(20.0, 200.0), Capacity(40.0, 400.0)}
    drawn = [there.of(1, i) for i in range(300)]
    assert set(drawn) == known
    assert all(70 < drawn.count(c) < 130 for c in known)
    assert drawn == [there.of(1, i) for i in range(300)] != [there.of(2, i) for i in range(300)]


def test_a_capacity_in_the_units_of_an_estimate():
    c = Capacity(10.0, 800.0)
    assert (c.training_ms, c.bytes_s) == (30.0, 100_000.0)


def test_arrays_of_other_names(tmp_path):
    np.savez(tmp_path / "c.npz", ms=[5.0], kbps=[80])
    assert capacities(tmp_path / "c.npz", "ms", "kbps").of(0, "d") == Capacity(5.0, 80.0)


def test_without_a_file_they_are_log_normal():
    usual = Usual(100.0, 0.5, 5000.0, 1.0)
    drawn = [usual.of(3, i) for i in range(2000)]
    assert drawn[7] == usual.of(3, 7) != usual.of(4, 7)
    for values, middle, sigma in [
        ([c.inference_ms for c in drawn], 100.0, 0.5),
        ([c.kbit_s for c in drawn], 5000.0, 1.0),
    ]:
        logs = np.log(values)
        assert median(logs) == pytest.approx(math.log(middle), abs=5 * 1.25 * sigma / math.sqrt(2000))
        assert logs.std() == pytest.approx(sigma, rel=0.08)
    assert abs(np.corrcoef(np.log(drawn), rowvar=False)[0, 1]) < 0.1


def test_the_default_is_as_its_docs_say():
    drawn = [Usual().of(0, i) for i in range(4000)]
    for at, ms in [(0.25, 29), (0.5, 54), (0.75, 100)]:
        assert np.quantile([c.inference_ms for c in drawn], at) == pytest.approx(ms, rel=0.08)
    for at, kbit_s in [(0.1, 1818), (0.5, 6075), (0.9, 32546)]:  # FedScale's
        assert np.quantile([c.kbit_s for c in drawn], at) == pytest.approx(kbit_s, rel=0.2)


@pytest.mark.parametrize("wrong", [{"kbit_s": 0}, {"inference_ms": math.nan}, {"kbit_sigma": -1}])
def test_a_default_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is a number"):
        Usual(**wrong)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"computation_ms_per_sample": [1]}, "no array communication_kbps: it has computation_ms_per_sample"),
        ({"computation_ms_per_sample": [1, 2], "communication_kbps": [1]}, "has 2 entries and communication_kbps 1"),
        ({"computation_ms_per_sample": [1, 0], "communication_kbps": [1, 1]}, "entry 1 of computation_ms_per_sample is 0"),
        ({"computation_ms_per_sample": [1.0], "communication_kbps": [np.nan]}, "communication_kbps is not a row of numbers"),
        ({"computation_ms_per_sample": [[1]], "communication_kbps": [1]}, "not a row of numbers, but .* \\(1, 1\\)"),
        ({"computation_ms_per_sample": ["1"], "communication_kbps": [1]}, "not a row of numbers"),
        ({"computation_ms_per_sample": [], "communication_kbps": []}, "is empty"),
    ],
)  # fmt: skip
def test_a_bad_capacity_file_is_refused_by_name(tmp_path, arrays, words):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=f"bad.npz: .*{words}"):
        capacities(path)


def test_what_is_no_npz_at_all_is_refused_by_name(tmp_path, file):
    path = tmp_path / "bad.npz"
    with pytest.raises(ValueError, match=r"bad\.npz: no such file"):
        capacities(path)
    np.save(tmp_path / "one.npy", np.arange(3))
    for wrong in (b"", b"ms,kbps\n1,2\n", file.read_bytes()[:-40], (tmp_path / "one.npy").read_bytes()):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"bad\.npz: no \.npz file, or a broken one"):
            capacities(path)


def test_a_broken_array_is_refused_by_name(tmp_path, file):
    path = tmp_path / "bad.npz"
    damaged = bytearray(file.read_bytes())
    damaged[damaged.index(b"\x0a\x00\x14\x00\x28\x00")] ^= 1  # 10, 20, 40: the checksum no longer fits
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"bad\.npz: .*CRC"):
        capacities(path)


def test_pickled_objects_are_never_read(tmp_path):
    path = tmp_path / "bad.npz"
    np.savez(path, computation_ms_per_sample=np.array([object()]), communication_kbps=[1])
    with pytest.raises(ValueError, match=r"bad\.npz: .*allow_pickle"):
        capacities(path)


# ------------------------------------------------------------------ bandwidth


def test_a_constant_bandwidth():
    assert constant(800.0).transfer_ms(100_000, 12_345) == 1000
    assert constant(800.0).transfer_ms(1, 0) == 1
    assert constant(800.0).transfer_ms(0, 0) == 0


def test_a_series_is_integrated():
    s = series((0, 8), (1, 0), (3, 4), (4, 16))  # 1000, 0, 500 and 2000 bytes a ms; 1, 2, 1 and 1 s
    assert s.transfer_ms(500_000, 0) == 500
    assert s.transfer_ms(1_000_000, 0) == 1000  # done when the pause begins
    assert s.transfer_ms(1_000_500, 0) == 3001
    assert s.transfer_ms(500_000, 2500) == 1500
    assert s.transfer_ms(600_000, 800) == 200 + 2000 + 800
    assert s.transfer_ms(2_500_000, 3000) == 2000  # to the end
    assert s.transfer_ms(2_501_000, 3000) == 2001  # and anew from the start
    assert s.transfer_ms(3 * 3_500_000, 0) == 3 * 5000
    assert s.transfer_ms(3 * 3_500_000 + 1000, 5000 * 7) == 3 * 5000 + 1


def test_after_a_last_step_without_any():
    s = series((0, 8), (1, 0))
    assert s.transfer_ms(1_000_000, 0) == 1000
    assert s.transfer_ms(2_000_000, 0) == 3000
    assert s.transfer_ms(1000, 1500) == 501


@st.composite
def any_series(draw):
    steps = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    mbps = draw(st.lists(st.integers(0, 4), min_size=len(steps), max_size=len(steps)).filter(any))
    return series(*zip(np.cumsum(steps), mbps, strict=True))


def by_ms(s: Bandwidth, bytes: int, at: int) -> int:
    """A ms at a time, in whole bits."""
    steps = np.diff(s.time_s).tolist()
    steps = [int(t) * 1000 for t in (*steps, steps[-1] if steps else 1)]
    bits, ms = bytes * 8, 0
    while bits > 0:
        t = (at + ms) % sum(steps)
        k = 0
        while t >= steps[k]:
            t, k = t - steps[k], k + 1
        bits -= int(s.mbps[k]) * 1000
        ms += 1
    return ms


@given(any_series(), st.integers(0, 2_000_000), st.integers(0, 50_000))
def test_as_if_counted_ms_by_ms(s, bytes, at):
    assert s.transfer_ms(bytes, at) == by_ms(s, bytes, at)


@given(any_series(), st.integers(1, 10_000_000), st.integers(1, 10_000_000), st.integers(0, 10**13))
def test_two_transfers_in_a_row_take_what_one_takes(s, first, second, at):
    """But for the ms that the first is rounded up by."""
    one, done = s.transfer_ms(first + second, at), s.transfer_ms(first, at)
    assert done - 1 + s.transfer_ms(second, at + done - 1) <= one <= done + s.transfer_ms(second, at + done)


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([(0, 1), (0, 2)], "each above the one before"),
        ([(0, 1), (1, -2)], "0 or more"),
        ([(0, 1), (1, math.inf)], "0 or more"),
        ([(math.nan, 1)], "are numbers"),
        ([(0, 0), (1, 0)], "nothing would ever arrive"),
    ],
)
def test_series_that_cannot_be(steps, words):
    with pytest.raises(ValueError, match=words):
        series(*steps)


def test_bytes_below_0_and_rows_that_do_not_match():
    with pytest.raises(ValueError, match="0 or more, not -1"):
        constant(1).transfer_ms(-1, 0)
    with pytest.raises(ValueError, match=r"not \(2,\) and \(1,\)"):
        Bandwidth(np.zeros(2), np.ones(1))


# ------------------------------------------------------------------ files of series


@pytest.fixture
def traces(tmp_path):
    path = tmp_path / "traces.npz"
    np.savez(
        path,
        oboe_offset=[0, 2, 3],
        oboe_time_s=np.array([0, 5, 9], np.float32),
        oboe_mbps=np.array([1, 2, 3], np.float32),
        oboe_name=np.array(["a", "b"]),
        a_b_offset=[0, 1],
        a_b_time_s=[0.0],
        a_b_mbps=[8],
    )
    return path


def test_series_of_a_file(traces):
    assert [b.mbps.tolist() for b in bandwidths(traces)] == [[8], [1, 2], [3]]
    assert [b.time_s.tolist() for b in bandwidths(traces, "oboe")] == [[0, 5], [9]]
    assert bandwidths(traces, "a_b")[0].transfer_ms(1000, 0) == 1


def test_series_without_a_name(tmp_path):
    np.savez(tmp_path / "t.npz", offset=[0, 1], time_s=[0], mbps=[8])
    assert len(bandwidths(tmp_path / "t.npz")) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"oboe_offset": [0, 2, 4]}, "offsets are whole numbers from 0 to the end"),
        ({"oboe_offset": [1, 2, 3]}, "offsets are whole numbers from 0 to the end"),
        ({"oboe_offset": np.array([], int)}, "offsets are whole numbers from 0 to the end"),
        ({"oboe_mbps": [1.0]}, "of one length"),
        ({"oboe_offset": [0, 9, 1, 3]}, "series 2: "),
        ({"oboe_mbps": [1.0, 1.0, -1.0]}, "series 2: bandwidths are numbers, 0 or more"),
        ({"oboe_offset": [0.0, 1.5, 3.0]}, "offsets are whole numbers"),
    ],
)
def test_a_bad_file_of_series_is_refused_by_name(traces, change, words):
    with np.load(traces) as f:
        arrays = dict(f)
    np.savez(traces, **(arrays | change))
    with pytest.raises(ValueError, match=f"traces.npz: .*{words}"):
        bandwidths(traces)


def test_series_that_are_not_there(traces, file):
    with pytest.raises(ValueError, match=r"no series of 'puffer': it has those of a_b, oboe"):
        bandwidths(traces, "puffer")
    with pytest.raises(ValueError, match=r"no bandwidth series: it has communication_kbps, computation"):
        bandwidths(file)
    with np.load(traces) as f:
        arrays = dict(f)
    del arrays["oboe_mbps"]
    np.savez(traces, **arrays)
    with pytest.raises(ValueError, match="no array oboe_mbps"):
        bandwidths(traces)
