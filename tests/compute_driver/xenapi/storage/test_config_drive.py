"""Config drives are what cloud-init looks for, hold no password, and go with their instance."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path

import pycdlib
import pytest

from agent_protocol.outcomes import Refused
from compute_driver.xenapi.connection.session import XenServer
from compute_driver.xenapi.storage import config_drive, disks
from compute_driver.xenapi.storage.config_drive import Contents, build
from compute_driver.xenapi.storage.transfers import Transfers

from ..conftest import Wanted
from .support import Storage

INSTANCE = Wanted()
CONTENTS = Contents(
    INSTANCE,
    "web.example",
    {"mine": "ssh-ed25519 AAAA"},
    {"role": "wëb"},
    b"#cloud-config\n\xff",
    {"links": []},
    {"a": 1},
)


def read(disc: bytes, names: str) -> dict[str, bytes]:
    """The files below openstack/latest, by one of the ways that a kernel has to name them: `joliet` or `rr`."""
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(disc))
    files = {}
    try:
        folder = {f"{names}_path": "/openstack/latest"}
        for child in iso.list_children(**folder):
            if child.is_dir():
                continue
            name = child.rock_ridge.name().decode() if names == "rr" else child.file_identifier().decode("utf-16-be")
            out = io.BytesIO()
            iso.get_file_from_iso_fp(out, **{f"{names}_path": f"/openstack/latest/{name}"})
            files[name] = out.getvalue()
    finally:
        iso.close()
    return files


@pytest.mark.parametrize("names", ["joliet", "rr"])
def test_a_disc_has_openstacks_files(names: str) -> None:
    files = read(build(CONTENTS), names)
    assert set(files) == {"meta_data.json", "user_data", "network_data.json", "vendor_data.json"}
    assert files["user_data"] == b"#cloud-config\n\xff"
    assert json.loads(files["network_data.json"]) == {"links": []}
    assert json.loads(files["vendor_data.json"]) == {"a": 1}
    assert json.loads(files["meta_data.json"]) == {
        "uuid": INSTANCE.uuid,
        "name": "web",
        "hostname": "web.example",
        "public_keys": {"mine": "ssh-ed25519 AAAA"},
        "keys": [{"name": "mine", "type": "ssh", "data": "ssh-ed25519 AAAA"}],
        "meta": {"role": "wëb"},
        "launch_index": 0,
    }


def test_a_disc_has_the_label_that_is_looked_for() -> None:
    disc = build(CONTENTS)
    # ECMA-119: the primary volume descriptor is sector 16, its volume identifier at 40.
    assert disc[16 * 2048 : 16 * 2048 + 6] == b"\x01CD001"
    assert disc[16 * 2048 + 40 : 16 * 2048 + 72].rstrip() == b"config-2"
    assert len(disc) % 2048 == 0


def test_what_is_not_given_is_not_there() -> None:
    assert set(read(build(Contents(INSTANCE, "h")), "rr")) == {"meta_data.json"}


@pytest.mark.parametrize("key", ["admin_pass", "adminPass", "PASSWORD", "passwd", "admin_password"])
def test_a_password_is_refused(key: str) -> None:
    with pytest.raises(Refused) as caught:
        Contents(INSTANCE, "h", meta={key: "hunter2"})
    assert caught.value.code == "config_drive_secret"
    assert "hunter2" not in str(caught.value)


def test_user_data_is_not_shown() -> None:
    assert "hunter2" not in repr(Contents(INSTANCE, "h", user_data=b"hunter2", vendor_data={"a": "hunter2"}))


def test_too_much_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        build(Contents(INSTANCE, "h", user_data=bytes(config_drive.MAX_SIZE + 1)))
    assert caught.value.code == "config_drive_too_large"


def test_a_drive_is_attached_read_only_and_goes_with_its_instance(storage: Storage) -> None:
    vm = storage.vm(INSTANCE.uuid)
    disk = config_drive.attach(storage.server, storage.transfers, storage.repository, vm, CONTENTS)
    (vbd,) = storage.server.call("VM.get_VBDs", vm)
    record = storage.server.call("VBD.get_record", vbd)
    assert (record["type"], record["mode"], record["userdevice"]) == ("CD", "RO", "3")
    assert record["VDI"] == disk.ref
    content = storage.content(disk.ref)
    assert set(read(content, "rr")) >= {"meta_data.json", "user_data"}
    assert not any(content[len(build(CONTENTS)) :])
    storage.server.call("VM.start", vm, False, False)
    storage.server.call("VM.hard_shutdown", vm)
    own = disks.of_vm(storage.server, INSTANCE.uuid, [vbd])
    assert own == [disk.ref]
    disks.destroy_all(storage.server, own)
    assert storage.vdis() == {}


@pytest.mark.parametrize("way", ["refused", "lost", "interrupted"])
def test_a_drive_that_is_not_made_to_its_end_is_not_there(storage: Storage, way: str) -> None:
    vm = storage.vm(INSTANCE.uuid)
    repository = storage.repository

    def operation(server: XenServer) -> None:
        config_drive.attach(server, Transfers(server), repository, vm, CONTENTS)

    def undo() -> None:
        disks.destroy_all(storage.server, storage.vdis())
        for vbd in storage.server.call("VM.get_VBDs", vm):
            storage.server.call("VBD.destroy", vbd)

    for methods in storage.each_call(way, operation, undo):
        assert storage.vdis() == {}, methods[-3:]
        assert [v for v in storage.server.call("VM.get_VBDs", vm) if not is_empty(storage, v)] == [], methods[-3:]
        undo()


def is_empty(storage: Storage, vbd: str) -> bool:
    return bool(storage.server.call("VBD.get_empty", vbd))


@pytest.mark.services
def test_linux_finds_the_label(tmp_path: Path) -> None:
    program = shutil.which("blkid") or shutil.which("blkid", path="/sbin:/usr/sbin")
    assert program, "needs blkid (Debian: util-linux)"
    (tmp_path / "disc").write_bytes(build(CONTENTS))
    done = subprocess.run([program, "-p", "-o", "export", str(tmp_path / "disc")], capture_output=True, check=True)
    lines = done.stdout.decode().splitlines()
    assert "LABEL=config-2" in lines
    assert "TYPE=iso9660" in lines
