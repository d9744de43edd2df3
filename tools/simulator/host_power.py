"""Which operation a host and a pool allow now. Source: ocaml/xapi/xapi_host_helpers.ml, xapi_pool_helpers.ml."""

from __future__ import annotations

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


def update_allowed_operations(database: Database, host: str) -> None:
    """Recompute a host's `allowed_operations`. It is live, so it never can be powered on."""
    with database.exclusively():
        enabled = database.get("host", host, "enabled")
        database.set("host", host, allowed_operations=[*_ALWAYS, *(() if enabled else _DISABLED_ONLY)])
