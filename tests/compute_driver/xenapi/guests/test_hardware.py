from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Refused
from compute_driver.images import DiskFormat, Image
from compute_driver.xenapi.guests.hardware import Hardware

SOURCE: Any = type("Source", (), {"digest_required": False})()


def asked(**properties: str) -> Hardware:
    return Hardware.of(Image("id", "image", DiskFormat.RAW, SOURCE, properties=properties))


def test_without_an_image_it_is_a_plain_computer() -> None:
    hardware = Hardware.of(None)
    assert hardware == Hardware() == asked(os_type="linux", something="else")
    assert hardware.boot_params() == {"order": "cd", "firmware": "bios"}
    assert hardware.platform(3) == {
        "acpi": "1",
        "apic": "true",
        "pae": "true",
        "nx": "true",
        "viridian": "false",
        "device-model": "qemu-upstream-compat",
        "secureboot": "false",
    }


@pytest.mark.parametrize(("word", "value"), [("required", "true"), ("optional", "auto"), ("disabled", "false")])
def test_secure_boot_is_for_uefi(word: str, value: str) -> None:
    hardware = asked(hw_firmware_type="uefi", os_secure_boot=word)
    assert hardware.boot_params()["firmware"] == "uefi"
    platform = hardware.platform(1)
    assert (platform["device-model"], platform["secureboot"]) == ("qemu-upstream-uefi", value)


def test_without_uefi_secure_boot_that_is_optional_is_off() -> None:
    assert asked(os_secure_boot="optional").platform(1)["secureboot"] == "false"


@pytest.mark.parametrize("word", ["windows", "Windows"])
def test_only_windows_finds_viridian(word: str) -> None:
    assert asked(os_type=word).platform(1)["viridian"] == "true"


def test_cores_fill_sockets() -> None:
    hardware = asked(hw_cpu_cores="2")
    assert hardware.platform(4)["cores-per-socket"] == "2"
    with pytest.raises(Refused) as caught:
        hardware.platform(3)
    assert caught.value.code == "bad_hardware"


@pytest.mark.parametrize(
    "properties",
    [
        {"hw_firmware_type": "coreboot"},
        {"os_secure_boot": "yes", "hw_firmware_type": "uefi"},
        {"os_secure_boot": "required"},
        {"hw_cpu_cores": "0"},
        {"hw_cpu_cores": "two"},
        {"hw_cpu_cores": "-1"},
        {"hw_cpu_cores": "9" * 5000},
    ],
)
def test_what_cannot_be_is_refused(properties: dict[str, str]) -> None:
    with pytest.raises(Refused) as caught:
        asked(**properties)
    assert caught.value.code == "bad_hardware"


@given(st.dictionaries(st.sampled_from(["hw_firmware_type", "os_secure_boot", "os_type", "hw_cpu_cores"]), st.text()))
def test_an_image_may_ask_for_anything(properties: dict[str, str]) -> None:
    try:
        hardware = asked(**properties)
        assert set(hardware.platform(4).values()) <= {"1", "2", "4", "true", "false", "auto"} | {
            "qemu-upstream-compat",
            "qemu-upstream-uefi",
        }
    except Refused as error:
        assert error.code == "bad_hardware"
