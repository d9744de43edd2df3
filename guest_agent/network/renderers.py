"""All renderers, by the names that configuration.NETWORK_STACKS has for them."""

from __future__ import annotations

from collections.abc import Mapping

from .alpine import Alpine
from .ifcfg import Ifcfg
from .ifupdown import Ifupdown
from .netplan import Netplan
from .networkd import Networkd
from .networkmanager import NetworkManager
from .renderer import Renderer
from .wicked import Wicked

RENDERERS: Mapping[str, Renderer] = {
    renderer.name: renderer
    for renderer in (Netplan(), NetworkManager(), Networkd(), Ifupdown(), Ifcfg(), Wicked(), Alpine())
}
