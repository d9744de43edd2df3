"""Network interfaces: VIFs on the pool's networks."""

from __future__ import annotations

from ..errors import XenServerFailure
from .session import XenServer


def connect(server: XenServer, vm: str) -> None:
    """Give the VM (a ref) one interface, on the first network (by bridge) that reaches a physical interface."""
    networks = server.call("network.get_all_records")
    wired = sorted((record["bridge"], ref) for ref, record in networks.items() if record["PIFs"])
    if not wired:
        raise XenServerFailure(["NETWORK_NOT_FOUND"])
    _, network = wired[0]
    server.call(
        "VIF.create",
        {
            "VM": vm,
            "network": network,
            "device": "0",
            "MAC": "",
            "MTU": "1500",
            "other_config": {},
            "qos_algorithm_type": "",
            "qos_algorithm_params": {},
        },
    )
