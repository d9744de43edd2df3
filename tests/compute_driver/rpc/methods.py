"""Every method of the bus, with arguments that are as they should be."""

from __future__ import annotations

from typing import Any

from ..bench import FILE, FIRST_NODE, IMAGE, INTERFACE, SEALED_VALUE, SECOND_NODE, VOLUME

WEB = {"target": "web"}
SIZES = {"memory_mb": 64, "vcpus": 1, "root_gb": 1}
NEW: dict[str, Any] = {
    "display_name": "web",
    **SIZES,
    "image_ref": IMAGE,
    "admin_password": "a Secret-pass 1",
    "injected_files": [FILE.to_dict()],
    "ssh_keys": ["ssh-ed25519 AAAA"],
    "interfaces": [INTERFACE.to_dict()],
    "volumes": [VOLUME.to_dict()],
    "config_drive": {"openstack/latest/meta_data.json": "e30="},
    "metadata": {"role": "web"},
    "node": FIRST_NODE,
    "power_on": True,
    "instance_uuid": "11111111-1111-4111-8111-111111111111",
}

ORDERS: dict[str, dict[str, Any]] = {
    "build_and_run_instance": NEW,
    "terminate_instance": WEB,
    "rebuild_instance": {
        **WEB,
        "image_ref": IMAGE,
        **{name: NEW[name] for name in ("admin_password", "injected_files", "ssh_keys")},
    },
    "rescue_instance": {**WEB, "image_ref": IMAGE, "rescue_password": "a Secret-pass 1"},
    "unrescue_instance": WEB,
    "start_instance": WEB,
    "stop_instance": {**WEB, "timeout": 10.0},
    "reboot_instance": {**WEB, "reboot_type": "HARD"},
    "pause_instance": WEB,
    "unpause_instance": WEB,
    "suspend_instance": WEB,
    "resume_instance": WEB,
    "snapshot_instance": {**WEB, "name": "copy", "disk_format": "raw"},
    "resize_instance": {**WEB, **SIZES, "node": SECOND_NODE},
    "migrate_instance": {**WEB, "node": SECOND_NODE},
    "confirm_resize": WEB,
    "revert_resize": WEB,
    "live_migrate_instance": {**WEB, "node": SECOND_NODE},
    "set_admin_password": {**WEB, "new_pass": "a Secret-pass 1"},
    "inject_file": {**WEB, "file": FILE.to_dict()},
    "add_ssh_keys": {**WEB, "keys": ["ssh-ed25519 AAAA"]},
    "send_sealed": {**WEB, "action": "inject_file", "request_id": "id", "value": SEALED_VALUE, "box": ""},
    "trust_agent": WEB,
    "inject_network_info": {**WEB, "interfaces": [INTERFACE.to_dict()]},
    "reset_network": WEB,
    "change_instance_metadata": {**WEB, "diff": {"role": ["+", "db"]}},
    "quiesce_instance": {**WEB, "timeout": 10.0},
    "unquiesce_instance": WEB,
    "attach_volume": {**WEB, "volume": VOLUME.to_dict()},
    "detach_volume": {**WEB, "volume_id": VOLUME.id},
    "attach_interface": {**WEB, "interface": INTERFACE.to_dict()},
    "detach_interface": {**WEB, "interface_id": INTERFACE.id},
    "set_host_enabled": {"node": FIRST_NODE, "enabled": True},
    "host_maintenance_mode": {"node": FIRST_NODE, "enabled": False},
    "host_power_action": {"node": FIRST_NODE, "action": "startup"},
}

QUESTIONS: dict[str, dict[str, Any]] = {
    "get_agent": {**WEB, "action": None},
    "get_instance": WEB,
    "get_devices": WEB,
    "list_instances": {},
    "list_actions": {**WEB, "request_id": "req-1"},
    "get_order": {"order_id": "order-1"},
    "get_console_output": WEB,
    "get_vnc_console": WEB,
    "get_diagnostics": WEB,
    "list_nodes": {},
    "list_services": {},
    "check_nodes": {"names": [FIRST_NODE]},
    "get_inventory": {"node": FIRST_NODE},
    "get_host_uptime": {"node": FIRST_NODE},
}

METHODS = {**ORDERS, **QUESTIONS}

OF_THE_SERVICE = {
    "check_can_live_migrate_destination",
    "confirmed",
    "drain",
    "follow",
    "follow_all",
    "init_host",
    "manage_image_cache",
    "reconcile",
    "remove_abandoned",
    "reverted",
    "state_of",
    "when_idle",
}
"""What of a manager is for the process that it runs in."""
