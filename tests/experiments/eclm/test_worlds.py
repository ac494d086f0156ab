"""Data, devices and what is done to them: nobody trains on what anybody is tested on, and each way does what it says."""

from dataclasses import replace

import numpy as np
import pytest

from device_sim.phones import UsualPhones
from experiments.asked import Asked, Cannot
from experiments.eclm import worlds
from experiments.eclm.accuracy import reached, target
from experiments.eclm.cloud import Cloud, Offline
from experiments.eclm.divergence import divergence
from experiments.eclm.shifting import Shifting
from experiments.eclm.ways import Eclm, FedAvg, HeteroFL, limits_of
from experiments.eclm.worlds import ALL, BY_CELL, BY_CLASS, DIGITS, Data, Samples, World, world
from experiments.record import Runs
from learning.modular.derivation import needs
from learning.modular.model import to_vector
from learning.modular.structure import SELECTOR, SHARED, blocks_of, owners
from schemas.blocks import slices


def data(people: bool = False) -> Data:
    """Numbers that say whose they are: x[0] is a sample's number, x[1] 1 if it is to test on."""
    n = 400
    x = np.zeros((n, 64), np.float32)
    x[:, 0] = np.arange(n)
    x[:, 2] = np.random.default_rng(0).normal(size=n)
    test = x.copy()
    test[:, 1] = 1
    cells = np.arange(n, dtype=np.int64) % 10
    y = cells if not people else (np.arange(n, dtype=np.int64) // 10) % 10
    return Data(Samples(x, y), cells, Samples(test, y), cells, people, UsualPhones())


def a_world(people: bool = False, partition: int = 3) -> World:
    return world(data(people), DIGITS, partition, 0)


@pytest.mark.parametrize("people", [False, True])
def test_proxy_pool_and_held_out_do_not_meet_and_devices_keep_to_their_cells(people):
    w = a_world(people)
    proxy = {int(v) for v in w.proxy.x[:, 0]}
    pool = {int(r) for rows in w.pool.values() for r in rows}
    assert len(proxy) == 120
    assert not proxy & pool
    assert len(proxy | pool) == 400
    if people:
        assert len(w.pool) == 7, "30 % of ten people are the cloud's"
    for d in w.devices:
        assert len(d.cells) == (1 if people else 3)
        mine, test = w.of(d)
        assert 50 <= len(mine) == d.samples <= 150
        assert {int(v) for v in mine.x[:, 0]} <= pool
        assert not mine.x[:, 1].any()
        assert test.x[:, 1].all()
        assert {int(v) % 10 for v in test.x[:, 0]} == set(d.cells) == {int(v) % 10 for v in mine.x[:, 0]}
    assert all(len(d.cells) == len(w.pool) for d in a_world(people, ALL).devices)


def test_a_phone_s_room_is_its_share_of_the_modules_and_at_least_one_of_each_layer():
    eclm = Eclm(cloud := Cloud(a_world(), None), cloud.modular())
    strong = replace(cloud.world.devices[0], room=(1.0, 1.0))
    weak = replace(strong, room=(0.0, 0.0))
    assert strong.limits(eclm.structure, 16) == needs(eclm.structure.cost(eclm.structure.whole), 16)
    assert weak.limits(eclm.structure, 16) == needs(eclm.structure.cost(((0, 5),)), 16)


def test_each_step_replaces_its_share_and_the_test_has_the_shares_of_what_is_there():
    w = a_world()
    shift = Shifting(w, 0.5)
    d = w.devices[0]
    before = shift.present[d.number].rows.copy()
    shift.step()
    now = shift.present[d.number]
    assert len(now.rows) == len(before)
    stayed = len(before) - round(0.5 * len(before))
    assert set(now.rows[:stayed].tolist()) <= set(before.tolist())
    mine, test = shift.of(d)
    assert len(mine) == d.samples
    for c in set(now.cells.tolist()):
        share = float((now.cells == c).mean())
        assert (test.y == c).sum() == min(max(1, round(100 * share)), 40)
    again = Shifting(w, 0.5)
    again.step()
    assert np.array_equal(again.present[d.number].rows, now.rows), "the same for all ways"


def test_a_round_of_eclm_sends_and_changes_just_the_modules_of_its_devices():
    cloud = Cloud(a_world(), None)
    eclm = Eclm(cloud, cloud.modular(), share=0.4)
    d = cloud.world.devices[0]
    mine, _ = cloud.world.of(d)
    choice, before = eclm.choice(d, mine), eclm.vector.copy()
    names = owners(eclm.layout)
    size = lambda blocks: 4 * sum(eclm.layout.sizes[b] for b in blocks)  # noqa: E731
    down, up = blocks_of(eclm.layout, choice), blocks_of(eclm.layout, choice, selector=False)
    assert 0 < len(choice[0]) - 1 < 5
    assert eclm.round([(d, mine)], 1) == size(down) + size(up)
    changed = {n for n, p in zip(names, slices(eclm.layout.sizes), strict=True) if (eclm.vector[p] != before[p]).any()}
    assert changed == {SHARED, *(f"0/{n}" for n in choice[0] if n != 5)}
    again = eclm.choice(d, mine)
    selector = size([b for b, n in enumerate(names) if n == SELECTOR])
    assert again == choice
    assert eclm.round([(d, mine)], 2) == size(down) + size(up) - selector, "the selector goes to a device once"


def test_fedavg_is_the_mean_by_samples_and_sends_the_whole_network():
    cloud = Cloud(a_world(), None)
    fed = FedAvg(cloud)
    some = [(d, cloud.world.of(d)[0]) for d in cloud.world.devices[:2]]
    before = fed.vector
    assert fed.round(some, 1) == 2 * 2 * 4 * len(before)
    weights = [len(m) for _, m in some]
    mean = sum(w * u for w, u in zip(weights, fed.updates, strict=True)) / sum(weights)
    assert np.allclose(fed.vector - before, mean, atol=1e-6)


def test_heterofl_s_level_is_the_largest_that_a_phone_has_room_for():
    cloud = Cloud(a_world(), None)
    limits = limits_of(cloud)
    first, second = (cloud.world.devices[n].number for n in (0, 1))
    limits[first] = limits[first]._replace(bytes=10**9, memory=10**9, macs=10**9)
    limits[second] = limits[second]._replace(memory=1)
    way = HeteroFL(cloud, limits, masked=True)
    assert way.levels[first] == 1.0
    assert way.levels[second] == 1 / 16
    d = cloud.world.devices[1]
    mine, _ = cloud.world.of(d)
    assert way.round([(d, mine)], 1) == 2 * way.costs[1 / 16].bytes


def test_offline_models_are_kept_and_not_made_again(tmp_path, monkeypatch):
    first = Cloud(a_world(), tmp_path).modular()
    monkeypatch.setattr("experiments.eclm.cloud.pretrain", None)
    monkeypatch.setattr("experiments.eclm.cloud.fit", None)
    again = Cloud(a_world(), tmp_path).modular()
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert (a == b).all()
    with pytest.raises(TypeError):
        Cloud(a_world(), tmp_path).modular(Offline(enhanced=False))


def test_sub_tasks_are_people_or_what_they_do_and_each_guides_by_its_own():
    """Three of ten people are the cloud's, and all of them do all there is to do."""
    w = a_world(people=True)
    assert set(w.subtasks[BY_CELL].tolist()) == {0, 1, 2}
    assert w.subtasks[BY_CLASS].tolist() == np.unique(w.proxy.y, return_inverse=True)[1].tolist()
    cloud = Cloud(w, None)
    by = [to_vector(cloud.modular(Offline(subtasks=by))) for by in (BY_CELL, BY_CLASS)]
    assert not np.array_equal(*by)


def test_without_residual_modules_there_are_none_in_any_sub_model():
    cloud = Cloud(a_world(), None)
    whole = cloud.modular(Offline(residual=False))
    assert whole.choice == ((0, 1, 2, 3, 4),)
    d = cloud.world.devices[0]
    eclm = Eclm(cloud, whole, share=0.4)
    choice = eclm.choice(d, mine := cloud.world.of(d)[0])
    assert choice[0]
    assert 5 not in choice[0]
    assert eclm.round([(d, mine)], 1) > 0


# ------------------------------------------------------------------ arithmetic


def test_divergence_by_hand():
    """Two devices have block 0, one alone block 1, which says nothing."""
    updates = [{0: np.array([1.0, 3.0], np.float32)}, {0: np.array([3.0, 3.0], np.float32), 1: np.ones(5, np.float32)}]
    assert divergence(updates) == pytest.approx((0.5, 1 / (5 + 9)))
    assert divergence(updates[:1]) == (0, 0)
    opposite = [{0: np.array([1.0], np.float32)}, {0: np.array([-1.0], np.float32)}]
    assert divergence(opposite) == (1, 1)


def test_bytes_are_counted_to_an_accuracy_that_all_come_to():
    found = {
        "fedavg": {"curve": [[0, 0, 0.5], [1, 10, 0.7], [2, 20, 0.9]]},
        "heterofl": {"curve": [[0, 0, 0.4], [2, 8, 0.8]]},
        "eclm": {"curve": [[0, 0, 0.6], [2, 5, 0.95]]},
    }
    goal = target(found)
    assert goal == pytest.approx(0.5 + 0.9 * 0.3)
    assert [reached(f["curve"], goal) for f in found.values()] == [(2, 20), (2, 8), (2, 5)]
    assert reached(found["heterofl"]["curve"], 0.99) is None


def test_without_data_only_quick_runs_and_on_the_digits(tmp_path):
    asked = Asked("x", tmp_path, Runs(tmp_path, "abc"), lambda tree, watchers: None, print)
    assert worlds.subject(replace(asked, quick=True), worlds.HAR) is DIGITS
    with pytest.raises(Cannot, match="--data"):
        worlds.load(asked, worlds.subject(asked, worlds.HAR))
