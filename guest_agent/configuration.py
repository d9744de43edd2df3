"""The agent's configuration file, /etc/xenward/agent.conf: what an image's builder decides about the agent.

A missing file, section or option means the default. Anything that is wrong in the file ends the agent's start: a typing
error must not quietly serve a command that the builder wanted blocked.
"""

from __future__ import annotations

import base64
import binascii
import configparser
from collections.abc import Mapping
from dataclasses import dataclass

from agent_protocol.outcomes import Refused

from .system.files import read_file
from .system.paths import GuestPath

CONFIGURATION_FILE = GuestPath("/etc/xenward/agent.conf")

AUTO = "auto"
"""The network stack is the one that the system is found to use."""

NETWORK_STACKS = ("netplan", "networkmanager", "networkd", "ifupdown", "ifcfg", "wicked", "alpine")

REFUSE, OVERRIDE, SHARE = "refuse", "override", "share"

_UPDATE_KEY_SIZE = 32


@dataclass(frozen=True)
class Configuration:
    """What stands in the file, checked.

    store: where XenStore is, see store.store_path(). block: names of commands that are not served. network_stack: AUTO
    or one of NETWORK_STACKS. cloud_init_network: REFUSE, or OVERRIDE, for a network that cloud-init owns.
    cloud_init_ssh_keys: SHARE, or REFUSE, for SSH keys where cloud-init is at work. update_key: the Ed25519 public key
    that updates of the agent must be signed by; None when there are to be none.
    """

    store: str = "xenbus"
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


def read_configuration(root: str) -> Configuration:
    """The configuration of the guest whose `/` is `root`. Refused (`bad_configuration`) names the line or option."""
    content = read_file(root, CONFIGURATION_FILE)
    return Configuration() if content is None else parse_configuration(content)


def parse_configuration(untrusted_content: bytes) -> Configuration:
    """The configuration in the file's content. Refused as above."""
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(untrusted_content.decode("utf-8"), CONFIGURATION_FILE.text)
    except UnicodeDecodeError:
        raise _bad("it is not UTF-8") from None
    except configparser.Error as error:
        raise _bad(str(error).replace("\n", " ")) from None
    sections: dict[str, Mapping[str, str]] = {name: {} for name in _OPTIONS}
    for name in parser.sections():
        if name not in _OPTIONS:
            raise _bad(f"there is no section [{name}]")
        unknown = sorted(parser[name].keys() - _OPTIONS[name])
        if unknown:
            raise _bad(f"[{name}] has no option {unknown[0]}")
        sections[name] = parser[name]
    agent, network, cloud_init = sections["agent"], sections["network"], sections["cloud-init"]
    return Configuration(
        agent.get("store", "xenbus"),
        frozenset(agent.get("block", "").replace(",", " ").split()),
        _one_of(network.get("stack", AUTO), "[network] stack", (AUTO, *NETWORK_STACKS)),
        _one_of(cloud_init.get("network", REFUSE), "[cloud-init] network", (REFUSE, OVERRIDE)),
        _one_of(cloud_init.get("ssh_keys", SHARE), "[cloud-init] ssh_keys", (SHARE, REFUSE)),
        _key(sections["update"].get("key", "")),
    )


def _one_of(untrusted: str, option: str, allowed: tuple[str, ...]) -> str:
    if untrusted not in allowed:
        raise _bad(f"{option} must be one of {', '.join(allowed)}")
    return untrusted


def _key(untrusted: str) -> bytes | None:
    if not untrusted:
        return None
    try:
        key = base64.b64decode(untrusted, validate=True)
    except (binascii.Error, ValueError):
        raise _bad("[update] key is not base64") from None
    if len(key) != _UPDATE_KEY_SIZE:
        raise _bad(f"[update] key must have {_UPDATE_KEY_SIZE} bytes, an Ed25519 public key")
    return key


def _bad(reason: str) -> Refused:
    return Refused("bad_configuration", f"{CONFIGURATION_FILE.text}: {reason}")
