"""The Debian package in a Debian: installed, serving, upgraded, removed, and gone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_protocol.outcomes import Outcome
from guest_agent.service import UNIT
from tests.guest_agent.conftest import Host
from tools.labs.roots import Root, debian_root
from tools.packages import deb
from tools.packages.agent_tree import CONFIGURATION_FILE, LIBRARY

from .guests import IDENTITY, accepts, agent, difference, guest, placed, shadow, tree

pytestmark = pytest.mark.services

WANTED = f"/etc/systemd/system/multi-user.target.wants/{UNIT}"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deb.build(tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deb.build(tmp_path_factory.mktemp("newer"), "9.0.0")


@pytest.fixture
def installed(package: Path) -> Iterator[tuple[Root, Host]]:
    with guest(debian_root(), package) as (root, host):
        root.run(["dpkg", "-i", *placed([package])])
        yield root, host


def test_the_same_bytes_each_time(package: Path, tmp_path: Path) -> None:
    again = deb.build(tmp_path)
    assert again.read_bytes() == package.read_bytes()


def test_the_same_bytes_for_a_date_in_the_future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "4000000000")
    assert deb.build(tmp_path / "1").read_bytes() == deb.build(tmp_path / "2").read_bytes()


def test_what_is_in_it(package: Path) -> None:
    listed = subprocess.run(["dpkg-deb", "-c", str(package)], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 5) for line in listed.splitlines()]
    assert {line[1] for line in lines} == {"root/root"}
    modes = {line[5].lstrip("."): line[0] for line in lines}
    assert modes["/usr/sbin/xenward-agent"] == "-rwxr-xr-x"
    assert modes[CONFIGURATION_FILE] == "-rw-r--r--"
    assert modes[f"{LIBRARY}/guest_agent/launch.py"] == "-rw-r--r--"
    assert modes[f"/usr/lib/systemd/system/{UNIT}"] == "-rw-r--r--"
    assert not [path for path in modes if "/tests" in path or "/tools" in path or "pycache" in path]


def test_an_installed_agent_serves_for_real(installed: tuple[Root, Host], tmp_path: Path) -> None:
    root, host = installed
    root.run(["useradd", "-m", "ann"])
    with agent(root, host, tmp_path / "log", "/usr/sbin/xenward-agent") as sealed:
        assert sealed.ask("password", {"value": "Correct-Horse-9"}).outcome == Outcome.SUCCEEDED
        assert accepts(root, "root", "Correct-Horse-9")
        assert not accepts(root, "root", "Correct-Horse-8")

        assert sealed.ask("password", {"user": "ann", "value": "Another-Horse-7"}).outcome == Outcome.SUCCEEDED
        assert accepts(root, "ann", "Another-Horse-7")
        assert accepts(root, "root", "Correct-Horse-9")

        # An account that is locked is opened.
        root.run(["passwd", "-l", "ann"])
        assert shadow(root, "ann")[1].startswith("!")
        assert sealed.ask("password", {"user": "ann", "value": "Third-Horse-55"}).outcome == Outcome.SUCCEEDED
        assert accepts(root, "ann", "Third-Horse-55")

        # The hash, as it came.
        hashed = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/"
        assert sealed.ask("password", {"user": "ann", "hash": hashed}).outcome == Outcome.SUCCEEDED
        assert shadow(root, "ann")[1] == hashed

        request = {"user": "ann", "value": "Fourth-Horse-44", "expire": True}
        assert sealed.ask("password", request).outcome == Outcome.SUCCEEDED
        assert shadow(root, "ann")[2] == "0"
        assert accepts(root, "ann", "Fourth-Horse-44")

        before = root.path("/etc/shadow").read_bytes()
        refused = sealed.ask("password", {"user": "nobody-here", "value": "Fifth-Horse-33"})
        assert (refused.outcome, refused.code) == (Outcome.REFUSED, "no_such_user")
        assert root.path("/etc/shadow").read_bytes() == before


def test_a_password_that_pwquality_does_not_like(installed: tuple[Root, Host], tmp_path: Path) -> None:
    root, host = installed
    root.path("/etc/security/pwquality.conf").write_text("minlen = 12\nenforce_for_root\ndictcheck = 0\n")
    before = root.path("/etc/shadow").read_bytes()
    with agent(root, host, tmp_path / "log", "/usr/sbin/xenward-agent") as sealed:
        refused = sealed.ask("password", {"value": "short1"})
        assert (refused.outcome, refused.code) == (Outcome.REFUSED, "password_policy")
        assert refused.message.startswith("BAD PASSWORD: The password is shorter than")
        assert root.path("/etc/shadow").read_bytes() == before
        assert sealed.ask("password", {"value": "Long-Enough-Horse-9"}).outcome == Outcome.SUCCEEDED
    assert accepts(root, "root", "Long-Enough-Horse-9")
    assert "Horse" not in (tmp_path / "log").read_text()


_SLOW_CHPASSWD = """\
#!/bin/sh
read word < /run/go
exec /usr/sbin/chpasswd.real "$@"
"""


@pytest.mark.parametrize("child", ["goes on", "dies too"])
def test_killed_while_chpasswd_works(installed: tuple[Root, Host], tmp_path: Path, child: str) -> None:
    """The next agent cannot know what became of it, and says so; the accounts are whole in any case."""
    root, host = installed
    root.run(["mv", "/usr/sbin/chpasswd", "/usr/sbin/chpasswd.real"])
    root.path("/usr/sbin/chpasswd").write_text(_SLOW_CHPASSWD)
    root.run(["chmod", "0755", "/usr/sbin/chpasswd"])
    root.run(["mkfifo", "/run/go"])
    before = root.path("/etc/shadow").read_bytes()
    with agent(root, host, tmp_path / "log", "/usr/sbin/xenward-agent") as sealed:
        asked = sealed.seal("password", {"value": "Correct-Horse-9"})
        sealed.send(asked)
        # It waits for the word once it has opened the pipe; the write ends waits for that.
        with root.path("/run/go").open("w") as go:
            root.run(["pkill", "-KILL", "-f", "launch.py"])
            if child == "dies too":
                root.run(["pkill", "-KILL", "-f", "chpasswd"])
            else:
                go.write("go\n")
    if child == "goes on":
        root.run(["sh", "-c", "while pgrep -f [c]hpasswd > /dev/null; do sleep 0.05; done"])
    with agent(root, host, tmp_path / "log", "/usr/sbin/xenward-agent"):
        receipt, result = sealed.finish(asked)
    assert (receipt.outcome, result.code) == (Outcome.UNKNOWN, "agent_restarted")
    host.assert_nothing_left()
    assert accepts(root, "root", "Correct-Horse-9") is (child == "goes on")
    if child == "dies too":
        assert root.path("/etc/shadow").read_bytes() == before
    root.run(["pwck", "-r", "-q"])


def test_systemd_has_nothing_to_say_of_the_installed_unit(installed: tuple[Root, Host]) -> None:
    root, _ = installed
    assert root.run(["systemd-analyze", "verify", "--man=no", UNIT]).stdout == ""


def test_it_checks_itself(installed: tuple[Root, Host]) -> None:
    root, _ = installed
    done = root.run(["/usr/sbin/xenward-agent", "--check"], check=False)
    lines = [line.split(None, 2) for line in done.stdout.splitlines()]
    missing = {line[1] for line in lines if line[0] == "missing"}
    assert missing == {"xenstore"}, done.stdout
    assert done.returncode == 1
    assert ["ok", "service", f"systemd starts {UNIT}"] in lines
    assert ["ok", "ownership", "only root can write /etc/xenward"] in lines


def test_installed_without_a_running_systemd(installed: tuple[Root, Host]) -> None:
    """As the builder of an image does: enabled, compiled, and nothing started."""
    root, _ = installed
    assert root.path(WANTED).is_symlink()
    compiled = root.path(f"{LIBRARY}/guest_agent/__pycache__")
    assert list(compiled.glob("agent.cpython-*.pyc"))
    assert "launch.py" not in root.run(["ps", "-A", "-o", "args"]).stdout
    root.run(["dpkg", "--verify", "xenward-agent"])


def test_an_upgrade_keeps_what_the_administrator_decided(package: Path, newer: Path) -> None:
    with guest(debian_root(), package, newer) as (root, _):
        first, second = placed([package, newer])
        root.run(["dpkg", "-i", first])
        root.run(["sh", "-c", f"echo '#mine' >> {CONFIGURATION_FILE}"])
        root.run(["systemctl", "disable", UNIT])
        root.run(["dpkg", "-i", "--force-confold", second])
        assert "9.0.0" in root.run(["dpkg-query", "-W", "xenward-agent"]).stdout
        assert root.path(CONFIGURATION_FILE).read_text().endswith("#mine\n")
        assert not root.path(WANTED).is_symlink()
        # Idempotent.
        root.run(["dpkg", "-i", "--force-confold", second])
        root.run(["dpkg-reconfigure", "-f", "noninteractive", "xenward-agent"])


@pytest.mark.parametrize("in_two_steps", [False, True])
def test_a_purge_leaves_the_identity_alone(package: Path, tmp_path: Path, in_two_steps: bool) -> None:
    with guest(debian_root(), package) as (root, host):
        before = tree(root)
        root.run(["dpkg", "-i", *placed([package])])
        with agent(root, host, tmp_path / "log", "/usr/sbin/xenward-agent") as sealed:
            assert sealed.ask("ping").outcome == Outcome.SUCCEEDED
        root.run(["mkdir", "-p", "/var/lib/xenward/update/9.9.9", "/run/xenward"])
        root.run(["touch", "/var/lib/xenward/network-undo.json", "/run/xenward/frozen.json"])
        root.run(["touch", f"{LIBRARY}/guest_agent/__pycache__/of_another_python.cpython-399.pyc"])
        if in_two_steps:
            root.run(["dpkg", "-r", "xenward-agent"])
            assert root.path(CONFIGURATION_FILE).exists()
            assert not root.path(LIBRARY).exists()
            assert not root.path("/run/xenward").exists()
        root.run(["dpkg", "-P", "xenward-agent"])
        after = tree(root)
    left = difference(before, after)
    assert IDENTITY in left
    assert {path for path in left if "xenward" in path} == {"/var/lib/xenward", IDENTITY}
    assert {path for path in left - set(before) if "xenward" not in path} <= _MADE_BY_SYSTEMD_HELPER


_MADE_BY_SYSTEMD_HELPER = {"/var/lib/systemd/deb-systemd-helper-enabled", "/var/lib/systemd/deb-systemd-helper-masked"}
