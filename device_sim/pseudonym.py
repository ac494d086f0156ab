"""What a device is called on topics, and what its dice are seeded with: stable hashes of names.

Both encode their parts unambiguously, so ("ab", "c") and ("a", "bc") never meet, and both are the same in every process
and on every machine (unlike `hash`).
"""

from hashlib import blake2b

import msgspec


def pseudonym(device: str, zone: str, owner: str, salt: bytes) -> str:
    """The device's name towards one zone and one task owner: 16 hex characters.

    Without the salt (1 to 64 secret bytes) it can be neither undone by trying IDs nor linked across zones or owners. With
    64 bits, two of 10 million devices share one with a chance of 3 in a million. Raises `ValueError` for another salt.
    """
    if not 1 <= len(salt) <= blake2b.MAX_KEY_SIZE:
        raise ValueError(f"a salt has 1 to {blake2b.MAX_KEY_SIZE} bytes, not {len(salt)}")
    return blake2b(msgspec.msgpack.encode((device, zone, owner)), key=salt, digest_size=8).hexdigest()


def seed_of(*parts: str | int) -> int:
    """A seed of 63 bits for what `parts` name: a device, a task, a round, the run's seed. 1 and "1" differ."""
    return int.from_bytes(blake2b(msgspec.msgpack.encode(parts), digest_size=8).digest(), "big") >> 1


def throw(*parts: str | int) -> float:
    """A throw in (0, 1), even, of what `parts` name: never 0 or 1, so a chance of 1 always comes and one of 0 never."""
    return ((seed_of(*parts) >> 11) + 0.5) / 2**52
