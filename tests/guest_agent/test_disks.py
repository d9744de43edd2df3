"""A disk that is full or read-only: what cannot be written is told so, and what was there stays as it was."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_protocol.outcomes import Outcome
from agent_protocol.sealed import SealedResult

from .conftest import AgentProcess, Host, names, ssh_key
from .sealing import SealedHost

StartAgent = Callable[..., AgentProcess]

HASH = "$6$rounds=5000$saltsalt$" + "a" * 86

FULL = (
    "mount -t tmpfs -o size=64k,nr_inodes=64 none {mnt} && cp -a {root}/. {mnt}/ && "
    "(dd if=/dev/zero of={mnt}/filling bs=4k 2>/dev/null || true)"
)
READ_ONLY = "mount -t tmpfs none {mnt} && cp -a {root}/. {mnt}/ && mount -o remount,ro {mnt}"


def start_on(start_agent: StartAgent, root: Path, mount: str) -> AgentProcess:
    """The agent in a mount namespace of its own, with a copy of the root directory on a disk made by `mount`.

    It lies over that directory, where the agent alone sees it: see seen().
    """
    made = mount.format(mnt="/mnt", root=root)
    script = f"mount --make-rprivate / && {made} && mount --move /mnt {root} && exec"
    return start_agent(prefix=["unshare", "--mount", "sh", "-c", f'{script} "$@"', "sh"])


def seen(agent: AgentProcess, root: Path) -> Path:
    """The agent's own view of its root directory."""
    return Path(f"/proc/{agent.process.pid}/root{root}")


def everything(sealed: SealedHost) -> dict[str, SealedResult]:
    large = base64.b64encode(b"new" * 10_000).decode()
    return {
        "file_put": sealed.ask("file_put", {"path": "/etc/hosts", "content": large}),
        "file_put new": sealed.ask("file_put", {"path": "/etc/a/b", "content": large}),
        "password": sealed.ask("password", {"hash": HASH}),
        "ssh_keys": sealed.ask("ssh_keys", {"user": "ann", "add": [ssh_key(1)]}),
    }


@pytest.mark.services
@pytest.mark.parametrize(("mount", "code"), [(FULL, "enospc"), (READ_ONLY, "erofs")], ids=["full", "read-only"])
def test_disks_that_take_nothing(start_agent: StartAgent, host: Host, root: Path, mount: str, code: str) -> None:
    (root / "etc/hosts").write_text("old\n")
    agent = start_on(start_agent, root, mount)
    sealed = SealedHost(host)
    there = seen(agent, root)
    before = {name: (there / "etc" / name).read_bytes() for name in names(there / "etc")}
    results = everything(sealed)
    told = {name: (result.outcome, result.code) for name, result in results.items()}
    assert told == dict.fromkeys(results, (Outcome.FAILED, code))
    assert {name: (there / "etc" / name).read_bytes() for name in before} == before
    assert not list(there.rglob(".xenward-*"))
    assert not (there / "home/ann/.ssh/authorized_keys").exists()
    assert not (there / "etc/a/b").exists()

    # Its identity lasts as long as it lives, and hosts are told the same one.
    assert sealed.ask("ping").outcome is Outcome.SUCCEEDED
    assert sealed.advert().identity == sealed.identity
    assert agent.end() == 0
    assert f"the identity cannot be kept, hosts will not recognise this agent again: {code.upper()}" in agent.log


@pytest.mark.services
def test_a_disk_that_has_room_again(start_agent: StartAgent, host: Host, root: Path) -> None:
    agent = start_on(start_agent, root, FULL)
    sealed = SealedHost(host)
    content = {"path": "/etc/hosts", "content": base64.b64encode(b"new").decode()}
    assert sealed.ask("file_put", content).code == "enospc"
    (seen(agent, root) / "filling").unlink()
    assert sealed.ask("file_put", content).outcome is Outcome.SUCCEEDED
    assert (seen(agent, root) / "etc/hosts").read_bytes() == b"new"
