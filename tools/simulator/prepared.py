"""What a fresh simulated pool contains: its hosts, each with its storage, its interface and its control domain."""

from __future__ import annotations

import hashlib

from . import host_power, power, storage_managers, vdis
from .machine import Host
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
"""What all simulated hosts share: only their ports differ."""

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


_BIOS = {
    "bios-vendor": "Xen",
    "bios-version": "",
    "system-manufacturer": "Xen",
    "system-product-name": "Simulated host",
    "system-version": "",
    "system-serial-number": "",
    "oem-1": "Xen",
    "hp-rombios": "",
}


def prepare(state: State, hosts: list[Host]) -> None:
    """Fill an empty database with a pool of those hosts, and lay out their dom0s' own nodes in XenStore.

    The first one is the coordinator. With several there is a storage repository that all share, which is the default.
    """
    database = state.database
    for host in hosts:
        state.hosts[_host(state, host)] = host
    state.coordinator = hosts[0].ref
    network = database.create(
        "network", name_label="Pool-wide network associated with eth0", bridge="xenbr0", managed=True
    )
    for host in hosts:
        _interface(state, host, network)
    local = [_local_storage(state, host) for host in hosts]
    default = local[0] if len(hosts) == 1 else _shared_storage(state, hosts)
    state.pool = database.create(
        "pool",
        master=state.coordinator,
        default_SR=default,
        suspend_image_SR=default,
        crash_dump_SR=default,
        ha_cluster_stack="xhad",
        cpu_info={name: _CPU[name] for name in ("cpu_count", "socket_count", "vendor", "features_hvm", "features_pv")},
        restrictions={"restrict_vif_locking": "false", "restrict_pool_attached_storage": "false"},
        allowed_operations=list(host_power.POOL_OPERATIONS),
    )
    for host in hosts:
        database.set("host", host.ref, suspend_image_sr=default, crash_dump_sr=default)
        host_power.record_boot(database, host.ref)
        host_power.update_allowed_operations(database, host.ref)
        _control_domain(state, host)
    storage_managers.record(database)
    for sr in database.refs("SR"):
        vdis.refresh(state, sr)


def _host(state: State, host: Host) -> str:
    """The record of a host, with its processors; its reference."""
    database = state.database
    metrics = database.create("host_metrics", live=True, memory_total=_HOST_MEMORY, last_updated=now())
    host.ref = database.create(
        "host",
        name_label=host.name,
        name_description="Simulated host",
        hostname=host.name,
        address=host.address,
        enabled=True,
        metrics=metrics,
        memory_overhead=_XEN_MEMORY,
        API_version_major=API_VERSION[0],
        API_version_minor=API_VERSION[1],
        API_version_vendor="XenSource",
        capabilities=["xen-3.0-x86_64", "hvm-3.0-x86_32", "hvm-3.0-x86_32p", "hvm-3.0-x86_64"],
        software_version={**_SOFTWARE, "hostname": host.name},
        API_version_vendor_implementation={},
        cpu_info=_CPU,
        chipset_info={"iommu": "true"},
        bios_strings=_BIOS,
        edition="xcp-ng",
        editions=["xcp-ng"],
        license_params={"sku_type": "xcp-ng", "restrict_vif_locking": "false", "expiry": "20991231T23:59:59Z"},
        sched_policy="credit",
        supported_bootloaders=["pygrub", "eliloader"],
        virtual_hardware_platform_versions=[0, 1, 2],
        iscsi_iqn=f"iqn.2024-01.example.{host.name}:0",
        ssl_legacy=False,
    )
    for number in range(int(_CPU["cpu_count"])):
        _processor(state, host, number)
    return host.ref


def _processor(state: State, host: Host, number: int) -> None:
    state.database.create(
        "host_cpu",
        host=host.ref,
        number=number,
        vendor=_CPU["vendor"],
        speed=int(float(_CPU["speed"])),
        modelname=_CPU["modelname"],
        family=int(_CPU["family"]),
        model=int(_CPU["model"]),
        stepping=_CPU["stepping"],
        flags=_CPU["flags"],
        features=_CPU["features_hvm"],
    )


def _local_storage(state: State, host: Host) -> str:
    database = state.database
    sr = database.create(
        "SR",
        name_label="Local storage",
        type="ext",
        content_type="user",
        physical_size=_SR_SIZE,
        sm_config={"devserial": ""},
    )
    database.create("PBD", host=host.ref, SR=sr, device_config={"device": "/dev/sda3"}, currently_attached=True)
    return sr


def _shared_storage(state: State, hosts: list[Host]) -> str:
    database = state.database
    sr = database.create(
        "SR", name_label="Shared storage", type="nfs", content_type="user", physical_size=_SR_SIZE, shared=True
    )
    config = {"server": "nfs.example", "serverpath": "/pool"}
    for host in hosts:
        database.create("PBD", host=host.ref, SR=sr, device_config=config, currently_attached=True)
    return sr


def _interface(state: State, host: Host, network: str) -> None:
    database = state.database
    metrics = database.create(
        "PIF_metrics",
        carrier=True,
        vendor_name="Simulated",
        device_name="Simulated network adapter",
        speed=1000,
        duplex=True,
        pci_bus_path="0000:00:03.0",
        last_updated=now(),
    )
    digest = hashlib.sha256(host.name.encode()).digest()
    database.create(
        "PIF",
        host=host.ref,
        network=network,
        device="eth0",
        MAC=bytes([0x02, *digest[:5]]).hex(":"),
        MTU=1500,
        VLAN=-1,
        metrics=metrics,
        physical=True,
        management=True,
        managed=True,
        currently_attached=True,
        ip_configuration_mode="Static",
        IP=_ADDRESS,
        netmask="255.0.0.0",
    )


def _control_domain(state: State, host: Host) -> None:
    database = state.database
    metrics = database.create(
        "VM_metrics", memory_actual=_DOM0_MEMORY, VCPUs_number=4, current_domain_type="pv", start_time=now()
    )
    vm = database.create(
        "VM",
        name_label=f"Control domain on host: {host.name}",
        is_control_domain=True,
        power_state="Running",
        domid=0,
        domain_type="pv",
        resident_on=host.ref,
        affinity=host.ref,
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
    database.set("host", host.ref, control_domain=vm)
    for protocol in ("rfb", "vt100"):
        console = database.create("console", VM=vm, protocol=protocol)
        # By reference, unlike those of guests.
        database.set("console", console, location=f"https://{host.address}/console?ref={console}")
    power.update_allowed_operations(database, vm)
    host.hypervisor.domains.build_control_domain(database.get("VM", vm, "uuid"))
