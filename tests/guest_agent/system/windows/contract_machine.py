"""What api.Registry and api.Machine promise."""

from __future__ import annotations

import ipaddress

from guest_agent.system.windows import places

from .contract import World, check

_COMPUTER_NAME = "SYSTEM\\CurrentControlSet\\Control\\ComputerName\\ComputerName"


@check()
def values_of_the_registry(world: World, directory: str) -> None:
    registry = world.api.registry
    assert not registry.has_key(world.registry_key)
    assert registry.value(world.registry_key, "text") is None
    values = {"text": "gr\u00fc\u00df dich", "number": 7, "bytes": b"\0\1", "texts": ["a", "b"], "empty": ""}
    for name, value in values.items():
        world.set_value(name, value)  # type: ignore[arg-type]
    assert registry.has_key(world.registry_key)
    assert {name: registry.value(world.registry_key, name) for name in values} == values
    assert registry.value(world.registry_key.upper(), "TEXT") == values["text"]
    assert registry.value(world.registry_key, "missing") is None
    assert not registry.has_key(world.registry_key + "\\missing")


@check()
def the_machine(world: World, directory: str) -> None:
    machine = world.api.machine
    major, minor, build = machine.version()
    assert (major, minor) == (10, 0) and build >= 14393
    assert machine.boot_time() == machine.boot_time() > 0
    assert machine.hostname() and "." not in machine.hostname()
    assert machine.system_directory()[1:3] == places.PROGRAM_DATA[1:3] == ":\\"
    assert machine.in_domain() in (True, False)


@check()
def adapters(world: World, directory: str) -> None:
    for adapter in world.api.machine.adapters():
        assert adapter.name and adapter.type > 0
        for address in adapter.addresses:
            ipaddress.ip_address(address)


@check(not_in_wine="in Wine nothing is licensed: 0xc004f002")
def the_licence(world: World, directory: str) -> None:
    assert world.api.machine.licensed() in (True, False)


@check(disposable=True)
def a_new_name(world: World, directory: str) -> None:
    world.api.machine.set_hostname("Xenward-contract-name")
    assert world.api.registry.value(_COMPUTER_NAME, "ComputerName") == "XENWARD-CONTRAC"
