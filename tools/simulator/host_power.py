"""Which operation a host and a pool allow now. Source: ocaml/xapi/xapi_host_helpers.ml, xapi_pool_helpers.ml."""

from __future__ import annotations

import time

from .database import Database

_ALWAYS = ("provision", "evacuate", "vm_start", "vm_resume", "vm_migrate")
_DISABLED_ONLY = ("reboot", "shutdown", "apply_updates", "enable")

POOL_OPERATIONS = (
    "ha_enable",
    "cluster_create",
    "designate_new_master",
    "configure_repositories",
    "sync_updates",
    "sync_bundle",
    "get_updates",
    "apply_updates",
    "tls_verification_enable",
    "cert_refresh",
    "exchange_certificates_on_join",
    "exchange_ca_certificates_on_join",
    "copy_primary_host_certs",
    "eject",
    "exchange_crls_on_join",
)
"""What a pool without high availability allows while nothing else is done to it."""


def record_boot(database: Database, host: str) -> None:
    """Write down that a host boots now, where and as dbsync_slave.ml does."""
    config = database.get("host", host, "other_config")
    database.set("host", host, other_config={**config, "boot_time": f"{int(time.time())}."})


def update_allowed_operations(database: Database, host: str) -> None:
    """Recompute a host's `allowed_operations`."""
    with database.exclusively():
        record = database.snapshot("host", host)
        allowed = [*_ALWAYS, *(() if record["enabled"] else _DISABLED_ONLY)]
        live = database.get("host_metrics", record["metrics"], "live")
        database.set("host", host, allowed_operations=allowed if live else ["power_on"])
