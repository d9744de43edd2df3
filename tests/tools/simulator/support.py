"""What the simulator's tests share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import XenAPI

STAND_IN = """
import json, os, signal, sys, threading
root, store, socket = sys.argv[1:]
with open(root + "/var/log/boots", "a") as log:
    log.write(json.dumps({"store": store, "socket": socket, "environment": dict(os.environ)}) + "\\n")
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
ended.wait()
with open(root + "/var/log/ended", "a") as log:
    log.write("cleanly\\n")
"""
"""An agent that writes down that it was started, and with what, and whether it could end by itself."""

DEADLINE = 10.0
MIB = 1024 * 1024
NULL = "OpaqueRef:NULL"

_PLUGIN = """#!{python} -IS
import os, sys, signal, xmlrpc.client
def answer(value):
    return xmlrpc.client.dumps(({{"Status": "Success", "Value": value}},), methodresponse=True)
def refuse(*description):
    return xmlrpc.client.dumps(({{"Status": "Failure", "ErrorDescription": list(description)}},), methodresponse=True)
{body}
"""


def plugin(directory: Path, name: str, body: str) -> None:
    """Write an executable dom0 plugin."""
    path = directory / name
    path.write_text(_PLUGIN.format(python=sys.executable, body=body), "utf-8")
    path.chmod(0o755)


def until(condition: Callable[[], Any]) -> Any:
    """Wait for what another process does; gives the condition's value, or fails at the deadline."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    pytest.fail("the deadline has passed")


def lives(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def vm_record(**changes: Any) -> dict[str, Any]:
    """What VM.create needs."""
    record: dict[str, Any] = {
        "name_label": "test",
        "name_description": "",
        "user_version": "1",
        "is_a_template": False,
        "affinity": NULL,
        "memory_static_min": str(128 * MIB),
        "memory_dynamic_min": str(128 * MIB),
        "memory_dynamic_max": str(256 * MIB),
        "memory_static_max": str(256 * MIB),
        "VCPUs_params": {},
        "VCPUs_max": "2",
        "VCPUs_at_startup": "1",
        "actions_after_shutdown": "destroy",
        "actions_after_reboot": "restart",
        "actions_after_crash": "restart",
        "PV_bootloader": "",
        "PV_kernel": "",
        "PV_ramdisk": "",
        "PV_args": "",
        "PV_bootloader_args": "",
        "PV_legacy_args": "",
        "HVM_boot_policy": "BIOS order",
        "HVM_boot_params": {"order": "cd"},
        "platform": {"nx": "true"},
        "PCI_bus": "",
        "other_config": {},
        "recommendations": "",
        "xenstore_data": {"vm-data/site": "here", "elsewhere": "hidden"},
    }
    return {**record, **changes}


class Vm:
    """A VM of a test, with the calls that take its reference first."""

    def __init__(self, session: XenAPI.Session, ref: str) -> None:
        self.session = session
        self.ref = ref
        self.uuid: str = session.xenapi.VM.get_uuid(ref)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.session.xenapi.VM, name)
        return lambda *arguments: method(self.ref, *arguments)

    def destroy(self) -> None:
        """Whatever its state, get rid of it."""
        if self.ref in self.session.xenapi.VM.get_all():
            self.session.xenapi.VM.set_blocked_operations(self.ref, {})
            self.session.xenapi.VM.set_is_a_template(self.ref, False)
            if self.session.xenapi.VM.get_power_state(self.ref) != "Halted":
                self.session.xenapi.VM.hard_shutdown(self.ref)
            self.session.xenapi.VM.destroy(self.ref)


def make_vm(session: XenAPI.Session, **changes: Any) -> Vm:
    """A new VM, halted."""
    return Vm(session, session.xenapi.VM.create(vm_record(**changes)))


def failure(call: Callable[..., Any], *arguments: Any) -> list[str]:
    """The error description that a call ends in."""
    with pytest.raises(XenAPI.Failure) as caught:
        call(*arguments)
    details: list[str] = caught.value.details
    return details
