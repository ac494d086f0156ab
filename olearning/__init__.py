"""OLearning: devices train shared models over Apache Kafka. What other code may import is here, each loaded when it is first used.

tasks                TaskSpec, parse_task
models and data      model, data, Dataset, held_out
training             client, Client, Context, flower
merging and sharing  strategy, policy, Market, Job, Rule, Turn
devices elsewhere    device_check, Phone
running and looking  simulate, Result, Epoch, Memory, Kafka, View, Snapshot
what goes wrong      Trouble, BrokerGone: the text says what is wrong and what to do

docs/your-own.md says how the parts go together, docs/api.md lists them; `olearning --help` is the command.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `_WHERE` says, for editors and type checkers
    from device_sim.client import Client as Client
    from device_sim.client import Context as Context
    from device_sim.client import client as client
    from device_sim.data import data as data
    from device_sim.dataset import Dataset as Dataset
    from device_sim.dataset import held_out as held_out
    from device_sim.flower import flower as flower
    from learning.registry import model as model
    from learning.sharing.policy import Job as Job
    from learning.sharing.policy import Market as Market
    from learning.sharing.policy import policy as policy
    from learning.strategies import strategy as strategy
    from olearning.errors import Trouble as Trouble
    from olearning.outcome import Epoch as Epoch
    from olearning.outcome import Result as Result
    from olearning.phone import Phone as Phone
    from olearning.simulating import simulate as simulate
    from olearning.snapshot import Snapshot as Snapshot
    from olearning.tasks import parse_task as parse_task
    from olearning.tokens import device_check as device_check
    from olearning.view import View as View
    from schemas.sharing import Rule as Rule
    from schemas.sharing import Turn as Turn
    from schemas.task import TaskSpec as TaskSpec
    from streams.kafka import Kafka as Kafka
    from streams.memory import Memory as Memory
    from streams.queries import BrokerGone as BrokerGone

_WHERE = {
    "TaskSpec": "schemas.task",
    "parse_task": "olearning.tasks",
    "model": "learning.registry",
    "data": "device_sim.data",
    "Dataset": "device_sim.dataset",
    "held_out": "device_sim.dataset",
    "client": "device_sim.client",
    "Client": "device_sim.client",
    "Context": "device_sim.client",
    "flower": "device_sim.flower",
    "strategy": "learning.strategies",
    "policy": "learning.sharing.policy",
    "Market": "learning.sharing.policy",
    "Job": "learning.sharing.policy",
    "Rule": "schemas.sharing",
    "Turn": "schemas.sharing",
    "device_check": "olearning.tokens",
    "Phone": "olearning.phone",
    "simulate": "olearning.simulating",
    "Result": "olearning.outcome",
    "Epoch": "olearning.outcome",
    "Memory": "streams.memory",
    "Kafka": "streams.kafka",
    "View": "olearning.view",
    "Snapshot": "olearning.snapshot",
    "Trouble": "olearning.errors",
    "BrokerGone": "streams.queries",
}
__all__ = list(_WHERE)
_NEEDS = {"Phone": ("aiohttp", "gateway")}
"""What comes with an extra, and with which."""


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"olearning has no {name!r}; it has {', '.join(_WHERE)}")
    package, extra = _NEEDS.get(name, ("", ""))
    if package and not find_spec(package):
        raise ModuleNotFoundError(f"olearning.{name} needs {package}: install olearning[{extra}]", name=package)
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return [n for n in __all__ if n not in _NEEDS or find_spec(_NEEDS[n][0])]
