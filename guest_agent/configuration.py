"""The agent's configuration file: what an image's builder decides about the agent. Where it is, its system knows.

A missing file, section or option means the default. Anything that is wrong in the file ends the agent's start: a typing
error must not quietly serve a command that the builder wanted blocked.
"""

from __future__ import annotations

import base64
import binascii
import configparser
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_protocol.outcomes import Refused

from .store import WINDOWS, XENBUS

if TYPE_CHECKING:
    from .system.base import System

DEFAULT_STORE = WINDOWS if sys.platform == "win32" else XENBUS

AUTO = "auto"
"""The network stack is the one that the system is found to use."""

NETWORK_STACKS = ("netplan", "networkmanager", "networkd", "ifupdown", "ifcfg", "wicked", "alpine")

REFUSE, OVERRIDE, SHARE = "refuse", "override", "share"

_UPDATE_KEY_SIZE = 32


@dataclass(frozen=True)
class Configuration:
    """What stands in the file, checked.

    store: where XenStore is, see store.check_store(). block: names of commands that are not served. network_stack: AUTO
    or one of NETWORK_STACKS. cloud_init_network: REFUSE, or OVERRIDE, for a network that cloud-init owns.
    cloud_init_ssh_keys: SHARE, or REFUSE, for SSH keys where cloud-init is at work. update_key: the Ed25519 public key
    that updates of the agent must be signed by; None when there are to be none.
    """

    store: str = DEFAULT_STORE
    block: frozenset[str] = frozenset()
    network_stack: str = AUTO
    cloud_init_network: str = REFUSE
    cloud_init_ssh_keys: str = SHARE
    update_key: bytes | None = None


_OPTIONS = {
    "agent": {"store", "block"},
    "network": {"stack"},
    "cloud-init": {"network", "ssh_keys"},
    "update": {"key"},
}


def read_configuration(system: System) -> Configuration:
    """The guest's configuration. Refused (`bad_configuration`) names the file and the line or option that is wrong.

    Errors of System.read_configuration come as they are.
    """
    content = system.read_configuration()
    return Configuration() if content is None else parse_configuration(content, system.configuration_name)


def parse_configuration(untrusted_content: bytes, name: str = "agent.conf") -> Configuration:
    """The configuration in the content of the file of that name. Refused as above."""
    try:
        return _parse(untrusted_content, name)
    except _Wrong as error:
        raise bad_configuration(name, str(error)) from None


def bad_configuration(name: str, reason: str) -> Refused:
    """The error for a configuration that cannot be followed; name: where it is."""
    return Refused("bad_configuration", f"{name}: {reason}")


def _parse(untrusted_content: bytes, name: str) -> Configuration:
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        # Editors of Windows put a mark in front that is not part of the text.
        parser.read_string(untrusted_content.decode("utf-8-sig"), name)
    except UnicodeDecodeError:
        raise _Wrong("it is not UTF-8") from None
    except configparser.Error as error:
        raise _Wrong(str(error).replace("\n", " ")) from None
    sections: dict[str, Mapping[str, str]] = {name: {} for name in _OPTIONS}
    for section in parser.sections():
        if section not in _OPTIONS:
            raise _Wrong(f"there is no section [{section}]")
        unknown = sorted(parser[section].keys() - _OPTIONS[section])
        if unknown:
            raise _Wrong(f"[{section}] has no option {unknown[0]}")
        sections[section] = parser[section]
    agent, network, cloud_init = sections["agent"], sections["network"], sections["cloud-init"]
    return Configuration(
        agent.get("store", DEFAULT_STORE),
        frozenset(agent.get("block", "").replace(",", " ").split()),
        _one_of(network.get("stack", AUTO), "[network] stack", (AUTO, *NETWORK_STACKS)),
        _one_of(cloud_init.get("network", REFUSE), "[cloud-init] network", (REFUSE, OVERRIDE)),
        _one_of(cloud_init.get("ssh_keys", SHARE), "[cloud-init] ssh_keys", (SHARE, REFUSE)),
        _key(sections["update"].get("key", "")),
    )


def _one_of(untrusted: str, option: str, allowed: tuple[str, ...]) -> str:
    if untrusted not in allowed:
        raise _Wrong(f"{option} must be one of {', '.join(allowed)}")
    return untrusted


def _key(untrusted: str) -> bytes | None:
    if not untrusted:
        return None
    try:
        key = base64.b64decode(untrusted, validate=True)
    except (binascii.Error, ValueError):
        raise _Wrong("[update] key is not base64") from None
    if len(key) != _UPDATE_KEY_SIZE:
        raise _Wrong(f"[update] key must have {_UPDATE_KEY_SIZE} bytes, an Ed25519 public key")
    return key


class _Wrong(Exception):
    """What is wrong with the file, without its name."""
