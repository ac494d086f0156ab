"""Which sharing policies there are, by name."""

from collections.abc import Mapping

from schemas.wire import Scalar

POLICIES: dict[str, Mapping[str, Scalar]] = {"reward": {}}
"""Those that this process knows, with their settings and what these are by default."""


def unknown(name: str, args: Mapping[str, Scalar]) -> str:
    """Why this process cannot share devices by that policy with these settings, or ""."""
    if name not in POLICIES:
        return f"there is no sharing policy {name!r} here; known: {', '.join(POLICIES)}"
    if strangers := [key for key in args if key not in POLICIES[name]]:
        return f"{name} has no setting {strangers[0]}; it has {', '.join(POLICIES[name]) or 'none'}"
    return ""
