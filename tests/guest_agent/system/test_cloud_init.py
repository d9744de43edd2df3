from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Failed
from guest_agent.system.cloud_init import AT_WORK_SECONDS, CloudInit, find_cloud_init, says_disabled
from guest_agent.system.directory import DirectorySystem

DISABLED = "network: {config: disabled}\n"


@pytest.fixture
def guest(root: Path) -> Path:
    """A guest in which cloud-init is installed and owns the network."""
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/cloud-init").touch()
    (root / "etc/cloud/cloud.cfg.d").mkdir(parents=True)
    (root / "etc/cloud/cloud.cfg").write_text("users: [default]\nnetwork:\n  config:\n    version: 1\n")
    return root


def test_installed(guest: Path) -> None:
    assert DirectorySystem(str(guest)).cloud_init() == CloudInit(True, True, False)
    (guest / "usr/bin/cloud-init").unlink()
    # What a removed package leaves behind.
    assert find_cloud_init(str(guest)) == CloudInit()


@pytest.mark.parametrize("name", ["etc/cloud/cloud-init.disabled", "run/cloud-init/disabled"])
def test_disabled_by_a_file(guest: Path, name: str) -> None:
    (guest / name).parent.mkdir(parents=True, exist_ok=True)
    (guest / name).touch()
    assert find_cloud_init(str(guest), seconds_since_boot=5) == CloudInit()


def test_the_kernels_command_line(guest: Path) -> None:
    assert find_cloud_init(str(guest), command_line="ro cloud-init=disabled quiet\n") == CloudInit()
    assert find_cloud_init(str(guest), command_line="ro network-config=disabled\n") == CloudInit(True, False, False)
    assert find_cloud_init(str(guest), command_line="xcloud-init=disabled network-config=eA==").owns_network


def test_the_last_file_counts(guest: Path) -> None:
    directory = guest / "etc/cloud/cloud.cfg.d"
    (directory / "50.cfg").write_text(DISABLED)
    assert find_cloud_init(str(guest)) == CloudInit(True, False, False)
    (directory / "60.cfg").write_text("network: {config: {version: 2}}\n")
    assert find_cloud_init(str(guest)).owns_network
    (directory / "70.cfg.bak").write_text(DISABLED)
    assert find_cloud_init(str(guest)).owns_network
    (directory / "70.cfg").write_text("growpart: off\n")
    (directory / "80.cfg").write_text(DISABLED)
    assert not find_cloud_init(str(guest)).owns_network


def test_files_that_cannot_be_read(guest: Path) -> None:
    directory = guest / "etc/cloud/cloud.cfg.d"
    (directory / "50.cfg").symlink_to("/dev/zero")
    (directory / "60.cfg").write_bytes(b"\xff")
    assert find_cloud_init(str(guest)).owns_network
    for number in range(300):
        (directory / f"x{number}.cfg").touch()
    with pytest.raises(Failed, match="more than 256"):
        find_cloud_init(str(guest))


def test_at_work(guest: Path) -> None:
    def at_work(seconds: float | None) -> bool:
        return find_cloud_init(str(guest), seconds_since_boot=seconds).at_work

    assert not at_work(5)
    (guest / "run/cloud-init").mkdir(parents=True)
    assert at_work(5)
    assert at_work(AT_WORK_SECONDS - 1)
    # It hangs, or has died; and in a directory nothing is at work.
    assert not at_work(AT_WORK_SECONDS)
    assert not at_work(None)
    # It is a link to a file, which need not lead anywhere from here.
    (guest / "run/cloud-init/result.json").symlink_to("../../var/lib/cloud/data/result.json")
    assert not at_work(5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (DISABLED, True),
        ("network: {config: disabled}", True),
        ("network: { config : 'disabled' } # ours\n", True),
        ('"network": {"config": "disabled"}\n', True),
        ("network: {version: 1, config: disabled}\n", True),
        ("network: {\n  config: disabled\n}\n", True),
        ("network:\n  config: disabled\n", True),
        ("network:\r\n  config: disabled\r\n", True),
        ("a: b\nnetwork:   # here\n\n  # there\n  version: 1\n  config: 'disabled'   # x\nb: c\n", True),
        ("network: {version: 1}\nnetwork:\n  config: disabled", True),
        ("network:\n  config:\n    version: 1\n    config: disabled\n", False),
        ("network: {config: {version: 1, config: disabled}}", False),
        ("network: {config: disabledx}", False),
        ("network: {config: disabled x}", False),
        ("network:\n  config: disabled x", False),
        ("network: {config: disabled", False),
        ("# network: {config: disabled}", None),
        ("  network: {config: disabled}", None),
        ("datasource:\n  network:\n    config: disabled\n", None),
        ("networks: {config: disabled}", None),
        ("network:{config: disabled}", None),
        ("network:\n  version: 1\nother:\n  config: disabled\n", None),
        ("network:\n- config: disabled\n", None),
        ("network:\n\tconfig: disabled\n", None),
        ("", None),
    ],
)
def test_forms(text: str, said: bool | None) -> None:
    assert says_disabled(text) is said


@given(
    st.lists(
        st.sampled_from(["network:", "config:", "disabled", "{", "}", ",", " ", "  ", "\n", "#", "'", "x", "\t"]),
        max_size=300,
    ).map("".join)
)
def test_any_text(text: str) -> None:
    assert says_disabled(text) in (True, False, None)
