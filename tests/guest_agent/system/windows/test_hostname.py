from __future__ import annotations

import logging

import pytest

from agent_protocol.outcomes import Failed, Refused
from guest_agent.system.hostname import HostName
from guest_agent.system.windows import WindowsSystem

from .fakes import CONTROL, TCPIP, FakeWindows


def test_a_new_name(system: WindowsSystem, windows: FakeWindows) -> None:
    assert not system.reboot_pending()
    system.set_hostname(HostName("web-1"))
    assert system.hostname() == "Old-Name"
    assert windows.registry.value(TCPIP, "NV Hostname") == "web-1"
    assert system.reboot_pending()


def test_back_to_the_old_name(system: WindowsSystem) -> None:
    system.set_hostname(HostName("web-1"))
    system.set_hostname(HostName("Old-Name"))
    assert not system.reboot_pending()


@pytest.mark.parametrize(("name", "told"), [("a" * 15, False), ("a" * 16, True), ("b" * 63, True)])
def test_long_names(
    system: WindowsSystem, windows: FakeWindows, caplog: pytest.LogCaptureFixture, name: str, told: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        system.set_hostname(HostName(name))
    assert ("NetBIOS name will be " + name[:15].upper() in caplog.text) == told
    assert windows.registry.value(f"{CONTROL}\\ComputerName\\ComputerName", "ComputerName") == name[:15].upper()


def test_names_with_a_domain(system: WindowsSystem) -> None:
    with pytest.raises(Refused) as caught:
        system.set_hostname(HostName("web-1.example.com"))
    assert caught.value.code == "bad_hostname"
    assert not system.reboot_pending()


def test_a_domains_member(system: WindowsSystem, windows: FakeWindows) -> None:
    windows.machine.domain = True
    with pytest.raises(Refused) as caught:
        system.set_hostname(HostName("web-1"))
    assert caught.value.code == "domain_member"
    assert not system.reboot_pending()


def test_a_name_that_is_not_kept(system: WindowsSystem, windows: FakeWindows) -> None:
    windows.machine.forgetful = True
    with pytest.raises(Failed, match="keeps another one") as caught:
        system.set_hostname(HostName("web-1"))
    assert caught.value.code == "hostname_failed"


@pytest.mark.parametrize("name", ["NV Hostname", "ComputerName"])
def test_half_a_name(system: WindowsSystem, windows: FakeWindows, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = TCPIP if name == "NV Hostname" else f"{CONTROL}\\ComputerName\\ComputerName"
    real = windows.machine.set_hostname

    def half(new: str) -> None:
        real(new)
        windows.registry.set(key, name, "other")

    monkeypatch.setattr(windows.machine, "set_hostname", half)
    with pytest.raises(Failed):
        system.set_hostname(HostName("web-1"))


def test_without_a_name_for_the_next_boot(system: WindowsSystem, windows: FakeWindows) -> None:
    windows.registry.set(TCPIP, "Hostname", "web-1")
    windows.registry.set(f"{CONTROL}\\ComputerName\\ComputerName", "ComputerName", "WEB-1")
    windows.registry.set(TCPIP, "NV Hostname", None)
    windows.machine.forgetful = True
    system.set_hostname(HostName("web-1"))


def test_what_the_system_says(system: WindowsSystem, windows: FakeWindows) -> None:
    windows.machine.errors["set_hostname"] = 1392
    with pytest.raises(Failed, match="error 1392: planned") as caught:
        system.set_hostname(HostName("web-1"))
    assert caught.value.code == "hostname_failed"
    windows.machine.errors["in_domain"] = 5
    with pytest.raises(Failed, match="in_domain"):
        system.set_hostname(HostName("web-1"))
    windows.machine.errors["hostname"] = 5
    with pytest.raises(Failed, match="hostname"):
        system.hostname()


@pytest.mark.parametrize(
    "key",
    [
        "SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\RebootPending",
        "SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\WindowsUpdate\\Auto Update\\RebootRequired",
    ],
)
def test_updates(system: WindowsSystem, windows: FakeWindows, key: str) -> None:
    windows.registry.keys.add(key)
    assert system.reboot_pending()


@pytest.mark.parametrize("name", ["PendingFileRenameOperations", "PendingFileRenameOperations2"])
def test_renames(system: WindowsSystem, windows: FakeWindows, name: str) -> None:
    key = f"{CONTROL}\\Session Manager"
    windows.registry.set(key, name, [])
    assert not system.reboot_pending()
    windows.registry.set(key, name, ["", ""])
    assert not system.reboot_pending()
    windows.registry.set(key, name, ["\\??\\C:\\a", ""])
    assert system.reboot_pending()


@pytest.mark.parametrize(
    ("key", "name"), [(TCPIP, "NV Hostname"), (f"{CONTROL}\\ComputerName\\ComputerName", "ComputerName")]
)
def test_either_name(system: WindowsSystem, windows: FakeWindows, key: str, name: str) -> None:
    windows.registry.set(key, name, "NEW")
    assert system.reboot_pending()
    windows.registry.set(key, name, None)
    assert not system.reboot_pending()


def test_an_unreadable_registry(system: WindowsSystem, windows: FakeWindows) -> None:
    windows.registry.error = 5
    with pytest.raises(Failed):
        system.reboot_pending()
