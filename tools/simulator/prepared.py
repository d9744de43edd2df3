"""What a fresh simulated pool contains: one host, its storage, its network and its control domain."""

from __future__ import annotations

import hashlib

from . import power
from .memory import MIB
from .state import State
from .values import now

API_VERSION = (2, 21)
"""The API version of XCP-ng's current xapi."""

_GIB = 1024 * MIB
_HOST_MEMORY = 64 * _GIB
_DOM0_MEMORY = 2 * _GIB
_XEN_MEMORY = 512 * MIB
_SR_SIZE = 1024 * _GIB
_ADDRESS = "127.0.0.1"
_SOFTWARE = {
    "product_brand": "XCP-ng",
    "product_version": "8.3.0",
    "product_version_text": "8.3",
    "product_version_text_short": "8.3",
    "platform_name": "XCP",
    "platform_version": "3.4.0",
    "build_number": "simulated",
    "xapi": "26.4",
    "xapi_build": "26.4.0",
    "xen": "4.17.5",
    "linux": "4.19.0+1",
    "network_backend": "openvswitch",
    "db_schema": "5.800",
}
_CPU = {
    "cpu_count": "16",
    "socket_count": "1",
    "threads_per_core": "2",
    "nr_nodes": "1",
    "vendor": "GenuineIntel",
    "speed": "2400.000",
    "modelname": "Simulated processor",
    "family": "6",
    "model": "85",
    "stepping": "4",
    "flags": "fpu de tsc msr pae cx8 apic sep cmov",
    "features_hvm": "",
    "features_pv": "",
}


def prepare(state: State) -> None:
    """Fill an empty database, and lay out dom0's own nodes in XenStore."""
    database = state.database
    name = state.settings.host_name
    metrics = database.create("host_metrics", live=True, memory_total=_HOST_MEMORY, last_updated=now())
    host = state.host = database.create(
        "host",
        name_label=name,
        name_description="Simulated host",
        hostname=name,
        address=_ADDRESS,
        enabled=True,
        metrics=metrics,
        memory_overhead=_XEN_MEMORY,
        API_version_major=API_VERSION[0],
        API_version_minor=API_VERSION[1],
        API_version_vendor="XenSource",
        capabilities=["xen-3.0-x86_64", "hvm-3.0-x86_32", "hvm-3.0-x86_32p", "hvm-3.0-x86_64"],
        software_version={**_SOFTWARE, "hostname": name},
        cpu_info=_CPU,
        sched_policy="credit",
        ssl_legacy=False,
    )
    sr = _storage(state)
    _network(state)
    state.pool = database.create(
        "pool", master=host, default_SR=sr, suspend_image_SR=sr, crash_dump_SR=sr, ha_cluster_stack="xhad"
    )
    database.set("host", host, suspend_image_sr=sr, crash_dump_sr=sr)
    _control_domain(state)


def _storage(state: State) -> str:
    database = state.database
    sr = database.create(
        "SR",
        name_label="Local storage",
        type="ext",
        content_type="user",
        physical_size=_SR_SIZE,
        sm_config={"devserial": ""},
    )
    database.create("PBD", host=state.host, SR=sr, device_config={"device": "/dev/sda3"}, currently_attached=True)
    return sr


def _network(state: State) -> None:
    database = state.database
    network = database.create(
        "network", name_label="Pool-wide network associated with eth0", bridge="xenbr0", managed=True
    )
    digest = hashlib.sha256(state.settings.host_name.encode()).digest()
    database.create(
        "PIF",
        host=state.host,
        network=network,
        device="eth0",
        MAC=bytes([0x02, *digest[:5]]).hex(":"),
        MTU=1500,
        VLAN=-1,
        physical=True,
        management=True,
        managed=True,
        currently_attached=True,
        ip_configuration_mode="Static",
        IP=_ADDRESS,
        netmask="255.0.0.0",
    )


def _control_domain(state: State) -> None:
    database = state.database
    metrics = database.create(
        "VM_metrics", memory_actual=_DOM0_MEMORY, VCPUs_number=4, current_domain_type="pv", start_time=now()
    )
    vm = state.control_domain = database.create(
        "VM",
        name_label=f"Control domain on host: {state.settings.host_name}",
        is_control_domain=True,
        power_state="Running",
        domid=0,
        domain_type="pv",
        resident_on=state.host,
        affinity=state.host,
        metrics=metrics,
        memory_static_min=_DOM0_MEMORY,
        memory_static_max=_DOM0_MEMORY,
        memory_dynamic_min=_DOM0_MEMORY,
        memory_dynamic_max=_DOM0_MEMORY,
        memory_target=_DOM0_MEMORY,
        VCPUs_max=4,
        VCPUs_at_startup=4,
        actions_after_crash="restart",
        has_vendor_device=False,
    )
    database.set("host", state.host, control_domain=vm)
    power.update_allowed_operations(database, vm)
    state.domains.build_control_domain(database.get("VM", vm, "uuid"))
