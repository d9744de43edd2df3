"""Which tests belong into one test process, because they share something that takes long to bring up.

pytest-xdist's own groups come with a mark, which newer versions of pytest do not carry to where they are shared out.
"""

from __future__ import annotations

import re
from typing import Any

from xdist.scheduler import LoadScopeScheduling

_SUITE = re.compile(r"tests/contract/suite/.*\[(?:.*-)?(real-xen|oxenstored|xenstored|simulator)(?:-.*)?\]\Z")

_ON_REAL_XEN = ("tests/contract/driver/test_core.py", "tests/tools/labs/xen/test_lab.py")
"""Two emulated computers at once keep each other waiting."""

_IN_WINE = ("tests/contract/wine/", "tests/tools/labs/wine/", "tests/guest_agent/system/windows/test_real.py")
"""They share disks with Windows, and a guest."""


def group_of(nodeid: str) -> str:
    """What a test belongs to: an environment, the drivers' contract, or nothing but itself."""
    found = _SUITE.match(nodeid)
    if found:
        return str(found[1])
    if nodeid.startswith(_ON_REAL_XEN):
        return "real-xen"
    if nodeid.startswith(_IN_WINE):
        return "wine"
    return "driver" if nodeid.startswith("tests/contract/driver/") else nodeid


class Groups(LoadScopeScheduling):
    """Shares tests out to processes, a group as a whole and the largest ones first."""

    def _split_scope(self, nodeid: str) -> Any:
        return group_of(nodeid)
