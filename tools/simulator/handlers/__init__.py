"""What the simulated XenServer answers over HTTP besides remote calls: disks, VMs, metrics and consoles as streams."""

from __future__ import annotations

from ..between_pools import frames
from ..http import Handler
from ..machine import Host
from ..state import State
from . import archives, console, disk_images, metrics, services
from .request import answering


def handlers(state: State, host: Host) -> dict[tuple[str, str], Handler]:
    """All that a host answers, by method and path."""
    served = {
        ("PUT", "/import_raw_vdi"): ("VDI.import", disk_images.import_raw_vdi),
        ("GET", "/export_raw_vdi"): ("VDI.export_raw", disk_images.export_raw_vdi),
        ("PUT", "/import"): ("VM.import", archives.import_vm),
        ("GET", "/export"): ("VM.export", archives.export_vm),
        ("GET", "/export_metadata"): ("VM.export_metadata", archives.export_metadata),
        ("GET", "/rrd_updates"): ("rrd_updates", metrics.rrd_updates),
        ("GET", "/vm_rrd"): ("vm_rrd", metrics.vm_rrd),
        ("GET", "/host_rrd"): ("host_rrd", metrics.host_rrd),
        ("GET", "/sr_rrd"): ("sr_rrd", metrics.sr_rrd),
        ("PUT", frames.PATH): ("VM.migrate_receive", services.receive),
        ("CONNECT", "/console"): ("Connection to VM console", console.connect),
    }
    return {
        (method, path): answering(state, host, path.strip("/").replace("/", "."), realm, function)
        for (method, path), (realm, function) in served.items()
    }
