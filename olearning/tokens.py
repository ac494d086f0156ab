"""Who a device is: the check of its token. By itself a gateway knows the tokens that were made with its secret; one's own check, of
tokens that somebody else gives out, registers under a name:

    @device_check("accounts")
    async def accounts(token: str) -> str | None:
        ...  # the device's ID, or None
"""

import hmac
from collections.abc import Awaitable, Callable
from hashlib import blake2b, sha256
from pathlib import Path
from typing import TypeVar

from olearning.errors import USAGE, Trouble

Check = Callable[[str], str | Awaitable[str | None] | None]
"""A token's device, or None if it is not known. It may raise if it cannot say; then the device is to ask again."""
C = TypeVar("C", bound=Check)
checks: dict[str, Check] = {}
LEAST = 16
"""Bytes of a secret."""
MOST_ID = 200
"""Characters of a device's ID."""


def device_check(name: str) -> Callable[[C], C]:
    """Make a check known by `name`. Raises `ValueError` if the name is taken."""

    def register(check: C) -> C:
        if name in checks:
            raise ValueError(f"there is a check {name!r} already")
        checks[name] = check
        return check

    return register


def find_check(name: str) -> Check:
    """Raises `Trouble` for one that is not known."""
    if name not in checks:
        known = ", ".join(sorted(checks)) or "none"
        raise Trouble(
            f"--check {name}: no such check is known; known: {known}. --load the file that registers it", USAGE
        )
    return checks[name]


def read_secret(path: Path) -> bytes:
    """The secret of a zone's gateways. Raises `Trouble` where there is none, or it is too short to be one."""
    make = f"make one: head -c 32 /dev/urandom > {path}"
    try:
        secret = path.read_bytes()
    except OSError as e:
        raise Trouble(f"cannot read {path}: {e.strerror}; {make}", USAGE) from None
    if len(secret) < LEAST:
        raise Trouble(f"{path} has {len(secret)} bytes, and a secret at least {LEAST}; {make}", USAGE)
    return secret


class Signed:
    """Tokens that bear a device's ID and a signature: DEVICE.SIGNATURE, HMAC with SHA-256. Nobody keeps a list of them; who has the
    secret makes them."""

    def __init__(self, secret: bytes):
        self._key = _derived(secret, b"tokens")

    def token(self, device: str) -> str:
        """Raises `ValueError` for what is no ID."""
        if not 0 < len(device) <= MOST_ID or not device.isascii() or not device.isprintable() or " " in device:
            raise ValueError(f"a device's ID has 1 to {MOST_ID} printable characters of ASCII, and no space")
        return f"{device}.{hmac.digest(self._key, device.encode(), 'sha256').hex()}"

    def __call__(self, token: str) -> str | None:
        device, _, _ = token.rpartition(".")
        try:
            good = self.token(device)
        except ValueError:
            return None
        return device if hmac.compare_digest(good.encode(), token.encode(errors="replace")) else None


def salt(secret: bytes) -> bytes:
    """What pseudonyms are made with: of the secret, and not to be had from a token."""
    return _derived(secret, b"pseudonyms")


def _derived(secret: bytes, what: bytes) -> bytes:
    return blake2b(sha256(secret).digest(), person=what, digest_size=32).digest()
