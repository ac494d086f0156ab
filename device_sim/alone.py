"""A phone behind a gateway: a fleet of one, with an edge of its own. The gateway knows who it is, so it has one name for all."""

from device_sim.device import Device
from device_sim.fleet import Fleet
from device_sim.link import ME


class Alone(Fleet):
    """The state machine of every device here, `Device`, on a phone of its own. `olearning/phone.py` carries its effects out over HTTP."""

    def _name(self, d: Device, zone: str, tenant: str) -> str:
        return ME
