"""What people touch. `olearning` on the command line; from code, what is listed here, loaded when first used."""

from importlib import import_module
from typing import Any

_WHERE = {
    "TaskSpec": "schemas.task",
    "BadTask": "schemas.task",
    "parse_task": "olearning.tasks",
    "model": "learning.registry",
    "data": "device_sim.data",
    "Dataset": "device_sim.data",
    "held_out": "device_sim.data",
    "client": "device_sim.client",
    "Client": "device_sim.client",
    "Context": "device_sim.client",
    "flower": "device_sim.flower",
    "strategy": "learning.strategies",
    "policy": "learning.sharing.policy",
    "Market": "learning.sharing.policy",
    "Rule": "schemas.sharing",
    "Turn": "schemas.sharing",
    "device_check": "olearning.tokens",
    "Phone": "olearning.phone",
    "Memory": "streams.memory",
    "Kafka": "streams.kafka",
    "View": "olearning.view",
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"olearning has no {name!r}; it has {', '.join(_WHERE)}")
    return getattr(import_module(_WHERE[name]), name)
