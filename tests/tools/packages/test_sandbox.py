"""The limits of the unit that can be had without systemd: the agent and what it runs do their work within them."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from agent_protocol.outcomes import Outcome
from guest_agent import service
from tools.labs.roots import debian_root
from tools.packages import deb

from .guests import accepts, agent, guest, placed

pytestmark = pytest.mark.services

_LIMITED = """\
import ctypes, os, sys
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
    sys.exit("this kernel cannot refuse executable memory: " + os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""What MemoryDenyWriteExecute does by a filter, done by the kernel (since 6.3). It holds for whatever is run then."""


def bounding_set() -> str:
    """The unit's CapabilityBoundingSet, as setpriv takes it."""
    names = []
    for line in service.read(service.UNIT).decode("ascii").splitlines():
        if line.startswith("CapabilityBoundingSet="):
            names += line.partition("=")[2].split()
    return ",".join(["-all", *(f"+{name[len('CAP_') :].lower()}" for name in names)])


def test_it_works_within_its_capabilities_and_without_executable_memory(tmp_path: Path) -> None:
    assert tuple(map(int, platform.release().split(".")[:2])) >= (6, 3), "this kernel has no PR_SET_MDWE"
    package = deb.build(tmp_path / "packages")
    with guest(debian_root(), package) as (root, host):
        root.run(["dpkg", "-i", *placed([package])])
        root.run(["useradd", "-m", "ann"])
        limits = ["setpriv", "--bounding-set", bounding_set(), "python3", "-c", _LIMITED]
        with agent(root, host, tmp_path / "log", *limits, "/usr/sbin/xenward-agent") as sealed:
            request = {"user": "ann", "value": "Correct-Horse-9", "expire": True}
            assert sealed.ask("password", request).outcome == Outcome.SUCCEEDED
            assert accepts(root, "ann", "Correct-Horse-9")
            put = {"path": "/home/ann/tool", "content": "eA==", "mode": "4755", "owner": "ann:ann"}
            assert sealed.ask("file_put", put).outcome == Outcome.SUCCEEDED
            status = root.path("/home/ann/tool").stat()
            assert (status.st_mode & 0o7777, status.st_uid) == (0o4755, 1000)
            assert sealed.ask("hostname", {"name": "renamed"}).outcome == Outcome.SUCCEEDED
            assert root.run(["hostname"]).stdout == "renamed\n"
