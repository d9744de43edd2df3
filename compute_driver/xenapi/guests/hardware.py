"""What kind of computer a guest sees: firmware, processors, and what XenServer calls the platform."""

from __future__ import annotations

from dataclasses import dataclass

from agent_protocol.outcomes import Refused

from ...images import Image

BIOS = "bios"
UEFI = "uefi"

_DEVICE_MODELS = {BIOS: "qemu-upstream-compat", UEFI: "qemu-upstream-uefi"}
"""What emulates the computer's devices, by the firmware that it can start."""

_SECURE_BOOT = {"required": "true", "optional": "auto", "disabled": "false"}
"""Nova's words for it, and XenServer's: `auto` is what the pool's certificates allow."""


@dataclass(frozen=True)
class Hardware:
    """Choices beyond a flavour's sizes.

    firmware: BIOS or UEFI. secure_boot: whether only signed systems start, in Nova's words `required`, `optional` or
    `disabled`; needs UEFI to be required. windows: whether the guest is Windows, which then finds the interfaces of
    Microsoft's hypervisor (viridian); others must not. cores_per_socket: None for a socket per processor; some systems
    are licensed by sockets. Refused (`bad_hardware`) for what cannot be.
    """

    firmware: str = BIOS
    secure_boot: str = "disabled"
    windows: bool = False
    cores_per_socket: int | None = None

    def __post_init__(self) -> None:
        if self.firmware not in _DEVICE_MODELS:
            raise _bad(f"the firmware is {BIOS} or {UEFI}")
        if self.secure_boot not in _SECURE_BOOT:
            raise _bad(f"secure boot is {', '.join(_SECURE_BOOT)}")
        if self.secure_boot == "required" and self.firmware != UEFI:
            raise _bad(f"secure boot needs the firmware {UEFI}")
        if self.cores_per_socket is not None and not self.cores_per_socket >= 1:
            raise _bad("a socket has at least one core")

    @classmethod
    def of(cls, image: Image | None) -> Hardware:
        """What an image asks for in its properties, under Glance's names for them."""
        properties = {} if image is None else image.properties
        cores = properties.get("hw_cpu_cores")
        if cores is not None and not (cores.isascii() and cores.isdigit() and len(cores) <= 4):
            raise _bad("hw_cpu_cores is a number of cores")
        return cls(
            firmware=properties.get("hw_firmware_type", BIOS),
            secure_boot=properties.get("os_secure_boot", "disabled"),
            windows=properties.get("os_type", "").lower() == "windows",
            cores_per_socket=None if cores is None else int(cores),
        )

    def boot_params(self) -> dict[str, str]:
        """VM.HVM_boot_params: the hard disk first, then what lies in a drive."""
        return {"order": "cd", "firmware": self.firmware}

    def platform(self, vcpus: int) -> dict[str, str]:
        """VM.platform for so many processors. Refused when they do not fill whole sockets."""
        platform = {
            "acpi": "1",
            "apic": "true",
            "pae": "true",
            "nx": "true",
            "viridian": "true" if self.windows else "false",
            "device-model": _DEVICE_MODELS[self.firmware],
            "secureboot": _SECURE_BOOT[self.secure_boot] if self.firmware == UEFI else "false",
        }
        if self.cores_per_socket is not None:
            if vcpus % self.cores_per_socket:
                raise _bad(f"{vcpus} processors do not fill sockets of {self.cores_per_socket} cores")
            platform["cores-per-socket"] = str(self.cores_per_socket)
        return platform


def _bad(reason: str) -> Refused:
    return Refused("bad_hardware", reason)
