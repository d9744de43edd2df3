"""The life of an instance through the command `xenward`, each step proven where it took effect."""

from __future__ import annotations

import stat
from pathlib import Path

from compute_driver.files import InjectedFile
from tools.commands import proof

from .house import FIRST_PASSWORD, SECOND_PASSWORD, House

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f operator@desk"


def test_a_guest_is_born_steered_and_removed(home: House, directory: Path) -> None:
    (directory / "motd").write_bytes(b"hello\n")
    (directory / "key.pub").write_text(KEY + "\n")
    instance = home.create("web", "--key-file", str(directory / "key.pub"), "--file", f"/etc/motd={directory / 'motd'}")
    guest = home.guest(instance)
    assert home.opens(instance, FIRST_PASSWORD)
    assert proof.key_is_authorized(guest, "root", KEY)
    assert proof.file_is(guest, InjectedFile("/etc/motd", b"hello\n"))

    shown = home.xenward("server", "show", "web").shown
    assert (shown["uuid"], shown["vm_state"], shown["power_state"]) == (instance, "active", "running")
    assert shown["agent_protocol"] == "sealed"
    assert "file_put" in shown["agent_features"]
    assert [row["uuid"] for row in home.xenward("server", "list").shown] == [instance]

    assert home.set_password(SECOND_PASSWORD).status == 0
    assert home.opens(instance, SECOND_PASSWORD)
    assert not home.opens(instance, FIRST_PASSWORD)

    content = bytes(range(256))
    (directory / "blob").write_bytes(content)
    put = ("server", "file", "put", "web", str(directory / "blob"), "/opt/new/blob")
    assert home.xenward(*put, "--mode", "0640", "--owner", "root:root").status == 0
    assert proof.file_is(guest, InjectedFile("/opt/new/blob", content, 0o640, "root"))
    assert stat.S_IMODE((guest / "opt/new/blob").stat().st_mode) == 0o640

    domid = home.vm(instance)["domid"]
    assert home.xenward("server", "reboot", "web", "--hard").status == 0
    assert int(home.vm(instance)["domid"]) > int(domid)
    assert home.set_password(FIRST_PASSWORD).status == 0
    assert home.opens(instance, FIRST_PASSWORD)

    assert home.xenward("server", "stop", "web").status == 0
    assert home.vm(instance)["power_state"] == "Halted"
    assert home.xenward("server", "show", "web").shown["power_state"] == "shutdown"
    assert home.xenward("server", "start", "web").status == 0
    assert home.vm(instance)["power_state"] == "Running"

    assert home.xenward("server", "delete", "web").status == 0
    assert home.xenward("server", "list").shown == []
    assert not guest.exists()
    with home.session() as xenapi:
        assert xenapi.VM.get_by_name_label(f"instance-{instance}") == []
        assert xenapi.VDI.get_all() == []


def test_the_audit_trail_tells_every_action_and_step_in_order(home: House) -> None:
    instance = home.create()
    home.xenward("server", "stop", "web")
    home.xenward("server", "delete", "web")
    rows = home.actions(instance)
    assert [(row["action"], row["step"]) for row in rows] == [
        ("create", None),
        ("create", "create_vm"),
        ("create", "create_root_disk"),
        ("create", "attach_interfaces"),
        ("create", "boot"),
        ("create", "wait_for_agent"),
        ("set_admin_password", None),
        ("stop", None),
        ("delete", None),
    ]
    assert {row["outcome"] for row in rows} == {"succeeded"}
    assert all(row["seconds"] > 0 for row in rows)
    # The password belongs to the same request as the creation.
    assert len({row["request_id"] for row in rows}) == 3


def test_a_generated_password_is_shown_once_and_opens_the_guest(home: House) -> None:
    created = home.xenward("server", "create", "web").shown
    assert home.opens(created["uuid"], created["admin_password"])
    reset = home.xenward("server", "password", "set", "web", "--generate").shown
    assert reset["admin_password"] != created["admin_password"]
    assert home.opens(created["uuid"], reset["admin_password"])
