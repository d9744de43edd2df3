from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface
from typing import Any

import pytest
from sqlalchemy import text

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused
from compute_driver import errors
from compute_driver.db.records import AttachedVolume
from compute_driver.db.repository import Repository
from compute_driver.network import Interface, NetworkName, Route
from compute_driver.volumes import IscsiConnection, NfsConnection, VdiConnection, Volume

from .making import connected, count, make_idle, make_migration

DISK = "3c5ab1d5-5d3a-4a24-9d28-4f9d2b5e8f11"
SECRET = "chap-5e0c1a6d94b7f283"
IQN = "iqn.2026-03.example:storage"


def volume(name: str, **given: Any) -> Volume:
    return Volume(name, given.pop("connection", VdiConnection(DISK)), **given)


def interface(number: int, **given: Any) -> Interface:
    return Interface(f"port-{number}", f"00:16:3e:00:00:{number:02x}", NetworkName("bridge", "xenbr0"), **given)


def test_volumes_come_back_as_they_went(repository: Repository) -> None:
    made = make_idle(repository)
    nfs = NfsConnection("storage.example", "/export/vms", DISK, str(uuid.uuid4()), "4.1")
    target = IscsiConnection("192.0.2.9", IQN, 5, port=3261)
    saved = [
        (volume("a", read_only=True), "xvdb"),
        (volume("b", connection=nfs, boot_index=0), "2"),
        (volume("c", connection=target), ""),
    ]
    for it, device in saved:
        repository.save_volume(made.uuid, it, device)
    first, second, third = repository.list_volumes(made.uuid)
    assert first == AttachedVolume(volume("a", read_only=True, device="xvdb"), "xvdb")
    assert second == AttachedVolume(volume("b", connection=nfs, boot_index=0, device="2"), "2")
    assert third == AttachedVolume(volume("c", connection=target), "")

    repository.save_volume(made.uuid, volume("a"), "xvdd")
    assert repository.list_volumes(made.uuid)[0] == AttachedVolume(volume("a", device="xvdd"), "xvdd")
    repository.delete_volume(made.uuid, "a")
    repository.delete_volume(made.uuid, "a")
    repository.delete_volume("nobody", "b")
    assert [attached.volume.id for attached in repository.list_volumes(made.uuid)] == ["b", "c"]


def test_no_password_of_a_volume_is_kept(repository: Repository, database_url: str) -> None:
    made = make_idle(repository)
    target = IscsiConnection("192.0.2.9", IQN, 5, chap_user="cloud", chap_password=Password(SECRET))
    repository.save_volume(made.uuid, volume("a", connection=target), "xvdb")
    with connected(database_url) as connection:
        (row,) = connection.execute(text("SELECT * FROM block_device_mappings")).mappings()
    assert SECRET not in repr(dict(row))
    (attached,) = repository.list_volumes(made.uuid)
    assert attached == AttachedVolume(
        volume("a", connection=IscsiConnection("192.0.2.9", IQN, 5), device="xvdb"), "xvdb", lacks_password=True
    )


def test_interfaces_come_back_as_they_went(repository: Repository) -> None:
    made = make_idle(repository)
    rich = interface(
        1,
        vlan=7,
        mtu=9000,
        addresses=(IPv4Interface("192.0.2.5/24"), IPv6Interface("2001:db8::5/64")),
        gateway4=IPv4Address("192.0.2.1"),
        routes=(Route(IPv4Network("198.51.100.0/24"), IPv4Address("192.0.2.2")),),
        dns=(IPv4Address("192.0.2.53"),),
        search=("example.org",),
        dhcp6=True,
        locked=True,
        allowed_addresses=(IPv4Address("192.0.2.6"),),
    )
    repository.save_interfaces(made.uuid, [interface(2), rich])
    assert repository.list_interfaces(made.uuid) == [interface(2), rich]
    # All at once: another order, one that stays, one that goes, one that is new.
    repository.save_interfaces(made.uuid, [interface(3), interface(2, mtu=1400)])
    assert repository.list_interfaces(made.uuid) == [interface(3), interface(2, mtu=1400)]
    # One at a time: in its place, or behind.
    repository.save_interface(made.uuid, interface(3, dhcp4=True))
    repository.save_interface(made.uuid, rich)
    assert repository.list_interfaces(made.uuid) == [interface(3, dhcp4=True), interface(2, mtu=1400), rich]
    repository.delete_interface(made.uuid, "port-2")
    repository.delete_interface(made.uuid, "port-2")
    assert repository.list_interfaces(made.uuid) == [interface(3, dhcp4=True), rich]
    repository.save_interface(made.uuid, interface(4))
    assert repository.list_interfaces(made.uuid)[-1] == interface(4)
    repository.save_interfaces(made.uuid, [])
    assert repository.list_interfaces(made.uuid) == []


def test_interfaces_that_cannot_be_together_are_not_recorded(repository: Repository) -> None:
    made = make_idle(repository)
    repository.save_interfaces(made.uuid, [interface(1)])
    with pytest.raises(Refused) as caught:
        repository.save_interfaces(made.uuid, [interface(2), interface(2)])
    assert caught.value.code == "bad_interface"
    assert repository.list_interfaces(made.uuid) == [interface(1)]


def test_devices_belong_to_instances_that_exist(repository: Repository) -> None:
    made = make_idle(repository)
    other = make_idle(repository)
    repository.save_volume(made.uuid, volume("a"), "xvdb")
    repository.save_volume(other.uuid, volume("a"), "xvdc")
    repository.save_interface(other.uuid, interface(1))
    assert repository.list_interfaces(made.uuid) == []
    repository.delete_volume(made.uuid, "a")
    assert [attached.device for attached in repository.list_volumes(other.uuid)] == ["xvdc"]
    repository.delete_instance(made.uuid)
    for attempt in (
        lambda: repository.save_volume(made.uuid, volume("b"), "xvdb"),
        lambda: repository.save_interface(made.uuid, interface(1)),
        lambda: repository.save_interfaces(made.uuid, [interface(1)]),
        lambda: make_migration(repository, made),
    ):
        with pytest.raises(errors.InstanceNotFound):
            attempt()


def test_the_same_device_at_the_same_time_is_one_row(repository: Repository, database_url: str) -> None:
    made = make_idle(repository)
    barrier = threading.Barrier(6)

    def save(number: int) -> None:
        barrier.wait(30)
        repository.save_volume(made.uuid, volume("a"), f"xvd{'bcdefg'[number]}")
        repository.save_interface(made.uuid, interface(1, mtu=1300 + number))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(save, range(6)))
    assert (count(database_url, "block_device_mappings"), count(database_url, "virtual_interfaces")) == (1, 1)
    assert repository.list_interfaces(made.uuid)[0].mtu in range(1300, 1306)


# Migrations of instances


def test_the_newest_migration_under_way_is_the_open_one(repository: Repository) -> None:
    made = make_idle(repository)
    assert repository.open_migration(made.uuid) is None
    first = make_migration(repository, made, kind="live", old_vcpus=2, new_vcpus=4, new_memory_mb=512)
    assert repository.open_migration(made.uuid) == first
    assert (first.kind, first.status, first.source_node, first.dest_node) == ("live", "migrating", "node-1", "")
    assert (first.old_vcpus, first.new_vcpus, first.new_memory_mb, first.request_id) == (2, 4, 512, "req-1")
    second = make_migration(repository, made)
    changed = repository.set_migration(second.id, status="post-migrating", dest_node="node-2")
    assert repository.open_migration(made.uuid) == changed
    assert (changed.status, changed.dest_node, changed.created_at) == ("post-migrating", "node-2", second.created_at)
    assert changed.updated_at > second.updated_at
    for status in ("confirmed", "reverted", "completed", "failed"):
        repository.set_migration(second.id, status=status)
        assert repository.open_migration(made.uuid) == first
    repository.set_migration(second.id, status="finished")
    assert repository.open_migration(made.uuid) is not None
    assert repository.open_migration("nobody") is None
    assert first.to_dict()["created_at"].endswith("+00:00")


def test_a_migration_that_cannot_be_is_refused(repository: Repository) -> None:
    made = make_idle(repository)
    with pytest.raises(ValueError, match="live"):
        make_migration(repository, made, kind="teleport")
    with pytest.raises(LookupError):
        repository.set_migration(1, status="failed")
    migration = make_migration(repository, made)
    with pytest.raises(TypeError, match="kind"):
        repository.set_migration(migration.id, kind="live")
    with pytest.raises(ValueError, match="status"):
        repository.set_migration(migration.id, status="x" * 65)


# Services


def test_services_are_seen_while_they_live(repository: Repository, database_url: str) -> None:
    first = repository.register_service("run-1", "compute-1", "compute", "1.0")
    assert (first.id, first.host, first.topic, first.version) == ("run-1", "compute-1", "compute", "1.0")
    assert first.stopped_at is None
    assert first.started_at == first.last_seen_at or first.started_at < first.last_seen_at
    with connected(database_url) as connection:
        connection.execute(text("UPDATE services SET last_seen_at = '2001-01-01 00:00:00.000000'"))
    assert repository.list_services()[0].seconds_silent > 1e8
    assert repository.beat_service("run-1")
    assert repository.list_services()[0].seconds_silent < 60
    repository.register_service("run-2", "compute-1", "compute", "1.0")
    repository.stop_service("run-1")
    ended, running = repository.list_services()
    assert (ended.id, running.id, running.stopped_at) == ("run-1", "run-2", None)
    assert ended.stopped_at is not None
    assert not repository.beat_service("run-1")
    assert not repository.beat_service("run-3")
    repository.stop_service("run-3")
    # Its order to register was lost on its way back, or it was started anew.
    assert repository.register_service("run-1", "compute-2", "compute", "1.1").stopped_at is None
    assert repository.beat_service("run-1")
    assert sorted(service.host for service in repository.list_services()) == ["compute-1", "compute-2"]
