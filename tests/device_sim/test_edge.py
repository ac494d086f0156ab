"""An edge's copy of models: what is fetched, from where, how often; what is kept, and what goes."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from device_sim.edge import Edge, Gone, contents
from learning.differences import differences
from schemas.blocks import BESIDE, Manifest, slices
from schemas.messages import Announcement, Ref
from schemas.task import Training
from schemas.topics import topic
from schemas.wire import encode
from streams.models import Writing
from streams.processor import Fetch, Requests

SIZES = (1000, 600, 600)
DICE = np.random.default_rng(0)
ONE = DICE.standard_normal(2200).astype(np.float32)


def step(vector: np.ndarray, blocks: tuple[int, ...] = (0, 1, 2), much: float = 1e-3) -> np.ndarray:
    """A version in which these blocks changed by about that share."""
    new = vector.copy()
    for i in blocks:
        here = slices(SIZES)[i]
        new[here] *= 1 + much * DICE.standard_normal(SIZES[i]).astype(np.float32)
    return new


class Log:
    """Where versions lie; notes which keys are asked for."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.edge = Edge(Requests())
        self.count = 0

    def write(self, vector: np.ndarray, before: tuple[np.ndarray, Manifest] | None = None, zone: str = "z") -> Manifest:
        self.count += 1
        short = differences(*before, vector, SIZES) if before else {}
        w, requests = Writing(topic("n", zone, "models"), 4, "t", self.count, "7/1", vector, SIZES, short), Requests()
        for i, sent in enumerate(w.sends(requests, "block")):
            self.values[sent.key or ""] = sent.value
            w.stored(sent.key or "", (sent.partition or 0, i))
        return w.manifest

    def round(self, manifest: Manifest, tenant: str = "acme", sizes: tuple[int, ...] = SIZES) -> Announcement:
        return Announcement(
            task="t", tenant=tenant, round=1, open=True, cause=Ref("z", 1), model="m", model_args={}, data="d", data_args={},
            training=Training(), sizes=sizes, unit=-24, largest=1.0, base=manifest, deadline=9,
        )  # fmt: skip

    def want(self, a: Announcement) -> list[Fetch]:
        out = list(self.edge.want(a))
        assert all(isinstance(e, Fetch) for e in out), out
        return out  # type: ignore[return-value]

    def carry(self, fetches: list[Any]) -> list[Gone]:
        """Answer, and whatever is asked then; what is given up."""
        gone = []
        while fetches:
            f = fetches.pop(0)
            if isinstance(f, Gone):
                gone.append(f)
                continue
            self.asked += [p.key for p in f.places]
            found = {p.key: self.values[p.key] for p in f.places if p.key in self.values}
            _, number = self.edge.requests.close(f.tag)
            fetches += self.edge.answer(number, found)
        return gone

    def get(self, a: Announcement) -> np.ndarray:
        assert self.carry(self.want(a)) == []
        got = self.edge.model(a)
        assert got is not None
        return got


def keys(m: Manifest, *which: int, beside: bool = False) -> list[str]:
    return [m.blocks[i].key + BESIDE * beside for i in which]


@pytest.fixture
def log() -> Log:
    return Log()


# ------------------------------------------------------------------ once


def test_a_version_is_fetched_once_however_many_want_it(log):
    a = log.round(log.write(ONE))
    first = log.want(a)
    assert log.want(a) == []  # it is on its way
    assert log.edge.model(a) is None
    assert log.carry(first) == []
    assert log.want(a) == []
    got = log.edge.model(a)
    assert got.tobytes() == ONE.tobytes()
    assert log.edge.model(a) is got  # one array for all devices
    assert len(log.asked) == 3
    assert log.edge.fetched == sum(map(len, log.values.values()))
    assert log.edge.held == ONE.nbytes


def test_a_block_that_stayed_as_it_was_is_not_fetched_again_whatever_names_it(log):
    log.get(log.round(log.write(ONE)))
    two = step(ONE, (1,))
    second, again = log.write(two), log.write(two, zone="global")
    assert log.get(log.round(second)).tobytes() == two.tobytes()
    assert log.asked[3:] == keys(second, 1)
    assert log.get(log.round(again)).tobytes() == two.tobytes()
    assert len(log.asked) == 4


def test_two_versions_that_share_a_block_wait_for_one_fetch(log):
    one, two = log.round(log.write(ONE)), log.round(log.write(step(ONE, (0,))))
    first, second = log.want(one), log.want(two)
    assert [p.key for f in second for p in f.places] == keys(two.base, 0)
    assert log.carry(second) == []
    assert log.edge.model(two) is None
    assert log.carry(first) == []
    assert log.edge.model(two) is not None
    assert log.edge.model(one) is not None


def test_blocks_that_are_alike_in_one_version_are_fetched_once(log):
    vector = np.concatenate([ONE[:1000], ONE[1000:1600], ONE[1000:1600]])
    assert log.get(log.round(log.write(vector))).tobytes() == vector.tobytes()
    assert len(log.asked) == 2
    assert log.edge.held == 4 * 1600


def test_a_block_of_another_tenant_is_another(log):
    """Nobody's devices train from what another tenant had stored under a checksum that is not his alone."""
    a = log.round(log.write(ONE))
    b = replace(a, tenant="labs", base=log.write(ONE))
    log.get(a)
    log.get(b)
    assert len(log.asked) == 6


def test_a_version_that_begins_with_another_tenant_s_block_is_not_his(log):
    """A manifest that somebody submits may name any blocks."""
    a = log.round(log.write(ONE))
    own = log.write(step(ONE, much=0.5))
    mixed = replace(a, tenant="labs", base=replace(a.base, blocks=(a.base.blocks[0], *own.blocks[1:])))
    assert log.get(mixed).tobytes() != ONE.tobytes()
    assert log.get(a).tobytes() == ONE.tobytes()


def test_a_block_that_is_not_at_its_place_is_asked_for_where_another_version_has_it(log):
    one, two = log.round(log.write(ONE)), log.round(log.write(step(ONE, (0,))))
    first, second = log.want(one), log.want(two)
    for key in keys(one.base, 1, 2):
        del log.values[key]
    assert log.carry(first + second) == []
    assert log.edge.model(one) is not None
    assert log.asked[-2:] == keys(two.base, 1, 2)


def test_what_is_nowhere_is_given_up_by_all_that_want_it_and_can_be_wanted_again(log):
    one, two = log.round(log.write(ONE)), log.round(log.write(step(ONE, (0,))))
    fetches = log.want(one) + log.want(two)
    kept = {key: log.values.pop(key) for key in keys(one.base, 1) + keys(two.base, 1)}
    gone = log.carry(fetches)
    assert {g.version for g in gone} == {f"acme/n.z.models/{m.base.blocks[0].key}" for m in (one, two)}
    assert "block 1 of n.z.models version 2" in gone[0].why
    assert log.edge.model(one) is None
    log.values |= kept
    log.get(one)
    assert log.asked[-1:] == keys(one.base, 1)  # the others are here


def test_a_block_that_is_not_what_was_written_is_none(log):
    a = log.round(log.write(ONE))
    key = a.base.blocks[0].key
    log.values[key] = log.values[key][:-1] + bytes([log.values[key][-1] ^ 1])
    (gone,) = log.carry(log.want(a))
    assert "is not what was written" in gone.why


@pytest.mark.parametrize("sizes", [(1000, 600), (1000, 600, 601)])
def test_a_version_that_does_not_fit_its_task_is_given_up(log, sizes):
    a = log.round(log.write(ONE), sizes=sizes)
    (gone,) = log.carry(list(log.edge.want(a)))
    assert "blocks" in gone.why or "values" in gone.why
    assert log.edge.model(a) is None


# ------------------------------------------------------------------ room


def test_what_was_not_used_for_longest_goes_first(log):
    versions = [log.round(log.write(step(ONE, much=0.5))) for _ in range(4)]
    log.edge.room = 2 * ONE.nbytes
    for a in versions[:2]:
        log.get(a)
    log.edge.model(versions[0])
    log.get(versions[2])
    log.edge.trim([])
    assert log.edge.held == 2 * ONE.nbytes
    assert [log.edge.model(a) is not None for a in versions[:3]] == [True, False, True]
    log.get(versions[1])  # once more


def test_what_a_job_waits_for_stays_though_there_is_no_room(log):
    log.edge.room = ONE.nbytes // 2
    one, two = log.round(log.write(ONE)), log.round(log.write(step(ONE, much=0.5)))
    log.get(one)
    fetches = log.want(two)
    log.edge.trim([one])
    assert log.edge.model(one) is not None
    assert log.carry(fetches) == []
    log.edge.trim([two])
    assert log.edge.held == ONE.nbytes
    assert log.edge.model(two) is not None
    assert log.edge.model(one) is None


def test_blocks_of_a_version_that_is_still_on_its_way_stay(log):
    two = step(ONE, (0,))
    one, second = log.round(log.write(ONE)), log.round(log.write(two))
    log.get(one)
    fetches = log.want(second)
    log.edge.room = 0
    log.edge.trim([])  # the two that the second version shares are wanted, the first one is not
    assert log.edge.held == 4 * 1200
    assert log.carry(fetches) == []
    assert log.edge.model(second).tobytes() == two.tobytes()


def test_a_version_in_one_piece_takes_no_second_room(log):
    a = log.round(log.write(ONE))
    got = log.get(a)
    for b in contents(a):
        assert np.shares_memory(log.edge._blocks[b], got)


# ------------------------------------------------------------------ differences


def versions(log: Log, n: int = 3) -> list[tuple[np.ndarray, Manifest]]:
    out = [(ONE, log.write(ONE))]
    for _ in range(n - 1):
        new = step(out[-1][0])
        out.append((new, log.write(new, out[-1])))
    return out


def test_an_edge_that_has_the_version_before_fetches_the_difference(log):
    before = 0
    for i, (vector, manifest) in enumerate(versions(log)):
        assert log.get(log.round(manifest)).tobytes() == vector.tobytes()
        here = log.asked[3 * i :]
        assert here == keys(manifest, 0, 1, 2, beside=i > 0)
        assert i == 0 or log.edge.fetched - before < 0.8 * vector.nbytes
        before = log.edge.fetched


def test_an_edge_that_has_not_fetches_the_blocks(log):
    (_, _), (_, _), (vector, manifest) = versions(log)
    assert log.get(log.round(manifest)).tobytes() == vector.tobytes()
    assert log.asked == keys(manifest, 0, 1, 2)


def spoil(log: Log, key: str, how: str) -> None:
    value = bytearray(log.values[key])
    match how:
        case "missing":
            del log.values[key]
            return
        case "cut":
            value = value[:-5]
        case "flipped":
            value[-1] ^= 1
        case "another":
            value = bytearray(next(v for k, v in log.values.items() if k.endswith("/1" + BESIDE) and k != key))
        case "a block":
            value = bytearray(log.values[key.removesuffix(BESIDE)])
        case "garbage":
            value = bytearray(encode({"type": "difference-block"}))
    log.values[key] = bytes(value)


@pytest.mark.parametrize("how", ["missing", "cut", "flipped", "another", "a block", "garbage"])
def test_a_difference_that_is_wrong_or_not_there_costs_the_block_and_no_more(log, how):
    (_, one), (vector, two) = versions(log, 2)
    log.get(log.round(one))
    spoil(log, keys(two, 0, beside=True)[0], how)
    assert log.get(log.round(two)).tobytes() == vector.tobytes()
    assert log.asked[3:] == keys(two, 0, 1, 2, beside=True) + keys(two, 0)


def test_a_difference_and_its_block_that_are_both_gone_are_given_up(log):
    (_, one), (_, two) = versions(log, 2)
    log.get(log.round(one))
    del log.values[keys(two, 0, beside=True)[0]], log.values[keys(two, 0)[0]]
    (gone,) = log.carry(log.want(log.round(two)))
    assert "block 0" in gone.why


def test_the_version_before_may_go_while_the_difference_is_on_its_way(log):
    (_, one), (vector, two) = versions(log, 2)
    log.get(log.round(one))
    fetches = log.want(log.round(two))
    log.edge.room = 0
    log.edge.trim([])
    assert log.edge.held == 0
    assert log.carry(fetches) == []
    assert log.edge.model(log.round(two)).tobytes() == vector.tobytes()


def test_a_block_that_stays_does_not_keep_the_versions_it_came_with() -> None:
    """One block of four is trained: memory is what `held` says, and not a vector for each version."""
    log = Log()
    v = np.arange(sum(SIZES), dtype=np.float32)
    log.edge.room = 2 * v.nbytes
    for _ in range(20):
        v = v.copy()
        v[0] += 1
        a = log.round(log.write(v))
        assert log.get(a).tobytes() == v.tobytes()
        log.edge.trim([a])
    alive = {
        id(b.base if b.base is not None else b): b.base if b.base is not None else b for b in log.edge._blocks.values()
    }
    assert sum(x.nbytes for x in alive.values()) <= log.edge.room
