from __future__ import annotations

import pytest

from agent_protocol.outcomes import Failed
from guest_agent.system.windows import WindowsSystem
from guest_agent.system.windows.api import Adapter

from .fakes import VERSION, FakeWindows

ETHERNET, WIRELESS, LOOPBACK, TUNNEL = 6, 71, 24, 131
MAC = bytes.fromhex("0a1b2c3d4e5f")


@pytest.mark.parametrize(
    ("build", "values", "name"),
    [
        (
            20348,
            {"ProductName": "Windows Server 2022 Standard", "DisplayVersion": "21H2", "ReleaseId": "2009"},
            "Windows Server 2022 Standard 21H2",
        ),
        (
            17763,
            {"ProductName": "Windows Server 2019 Datacenter", "ReleaseId": "1809"},
            "Windows Server 2019 Datacenter 1809",
        ),
        (22631, {"ProductName": "Windows 10 Pro", "DisplayVersion": "23H2"}, "Windows 11 Pro 23H2"),
        (22000, {"ProductName": "Windows 10 Home"}, "Windows 11 Home"),
        (21999, {"ProductName": "Windows 10 Pro"}, "Windows 10 Pro"),
        (
            26100,
            {"ProductName": "Windows Server 2025 Standard", "DisplayVersion": "24H2"},
            "Windows Server 2025 Standard 24H2",
        ),
        (20348, {"ProductName": 7}, None),
        (20348, {}, None),
    ],
)
def test_releases(
    system: WindowsSystem, windows: FakeWindows, build: int, values: dict[str, str], name: str | None
) -> None:
    windows.machine.build = build
    for key, value in values.items():
        windows.registry.set(VERSION, key, value)
    told = {"ID": "windows", "VERSION_ID": f"10.0.{build}"}
    assert system.release() == (told if name is None else {**told, "PRETTY_NAME": name})


def test_kernel(system: WindowsSystem, windows: FakeWindows) -> None:
    assert system.kernel() == "10.0.20348"
    windows.registry.set(VERSION, "UBR", 2031)
    assert system.kernel() == "10.0.20348.2031"


def test_distribution(system: WindowsSystem) -> None:
    found = system.distribution()
    assert (found.id, found.version, found.known_family(), found.major_version) == (
        "windows",
        "10.0.20348",
        "windows",
        10,
    )
    assert not system.cloud_init().enabled


def test_boot_id(system: WindowsSystem) -> None:
    assert system.boot_id() == "01dd7b21df8d09d6"


def test_adapters(system: WindowsSystem, windows: FakeWindows) -> None:
    windows.machine.found = [
        Adapter("Ethernet", MAC, ETHERNET, True, ("192.0.2.5", "fe80::1", "2001:db8::5", "169.254.7.7")),
        Adapter("Ethernet 2", bytes(6), ETHERNET, False, ("192.0.2.6",)),
        Adapter("Wi-Fi", bytes(range(6)), WIRELESS, True, ()),
        Adapter("Team", MAC, ETHERNET, True, ("192.0.2.7",)),
        Adapter("Loopback Pseudo-Interface 1", b"", LOOPBACK, True, ("127.0.0.1", "::1", "192.0.2.8")),
        Adapter("Loopback with a MAC", bytes(6), LOOPBACK, True, ()),
        Adapter("Teredo", bytes(6), TUNNEL, True, ("2001:0:1::1",)),
        Adapter("Odd", bytes(8), ETHERNET, True, ("127.0.0.2",)),
    ]
    assert system.interface_names() == {
        "0a:1b:2c:3d:4e:5f": ["Ethernet", "Team"],
        "00:00:00:00:00:00": ["Ethernet 2"],
        "00:01:02:03:04:05": ["Wi-Fi"],
    }
    assert system.addresses() == [
        {"interface": "Ethernet", "address": "192.0.2.5"},
        {"interface": "Ethernet", "address": "2001:db8::5"},
        {"interface": "Team", "address": "192.0.2.7"},
        {"interface": "Teredo", "address": "2001:0:1::1"},
    ]


def test_what_the_system_does_not_tell(system: WindowsSystem, windows: FakeWindows) -> None:
    windows.machine.errors.update(adapters=8, version=5, boot_time=5)
    assert system.addresses() == []
    for call in (system.interface_names, system.release, system.kernel, system.boot_id):
        with pytest.raises(Failed, match="planned"):
            call()
