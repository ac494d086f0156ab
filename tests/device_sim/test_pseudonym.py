"""Names and seeds by hash: stable, unlinkable, unambiguous."""

import re
from hashlib import blake2b

import pytest

from device_sim.pseudonym import pseudonym, seed_of, throw

SALT = b"secret"


def test_a_pseudonym_is_the_same_for_the_same_and_another_for_others():
    name = pseudonym("d1", "eu", "acme", SALT)
    assert re.fullmatch("[0-9a-f]{16}", name)
    assert name == pseudonym("d1", "eu", "acme", SALT)
    others = [
        pseudonym("d2", "eu", "acme", SALT),
        pseudonym("d1", "us", "acme", SALT),
        pseudonym("d1", "eu", "other", SALT),
        pseudonym("d1", "eu", "acme", b"another"),
        pseudonym("d1e", "u", "acme", SALT),
        pseudonym("d1", "euacme", "", SALT),
    ]
    assert len({name, *others}) == 7


def test_ten_thousand_devices_have_ten_thousand_names():
    assert len({pseudonym(f"d{i}", "eu", "acme", SALT) for i in range(10_000)}) == 10_000


@pytest.mark.parametrize("salt", [b"", b"x" * 65])
def test_a_salt_must_be_one(salt):
    with pytest.raises(ValueError, match="1 to 64 bytes"):
        pseudonym("d1", "eu", "acme", salt)


def test_seeds_are_63_bits_and_tell_parts_apart():
    seeds = [
        seed_of(),
        seed_of("a"),
        seed_of("a", "b"),
        seed_of("ab"),
        seed_of("a", 1),
        seed_of("a", "1"),
        seed_of("a", -1),
    ]
    assert len(set(seeds)) == len(seeds)
    many = [seed_of("d", i) for i in range(1000)]
    assert 0 <= min(many) < 2**60
    assert 2**63 - 2**60 < max(many) < 2**63
    packed = b"\x94\xa6device\xa4task\x03\x07"  # MessagePack by hand: on every machine, in every version
    assert seed_of("device", "task", 3, 7) == int(blake2b(packed, digest_size=8).hexdigest(), 16) // 2


def test_throws_are_even_and_never_0_or_1(monkeypatch):
    many = [throw("d", i) for i in range(1000)]
    assert many == [throw("d", i) for i in range(1000)]
    assert [sum(k / 10 <= t < (k + 1) / 10 for t in many) for k in range(10)] == pytest.approx([100] * 10, abs=45)
    for most in (0, 2**63 - 1):
        monkeypatch.setattr("device_sim.pseudonym.seed_of", lambda *_, most=most: most)
        assert 0 < throw("d") < 1
