"""What the self-check says of images. That of a running system is tried with the packages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest_agent.check import CHECKS, MISSING, NEUTRAL, OK, WARNING, Finding, Guest, findings, main
from guest_agent.service import UNIT
from guest_agent.system.directory import DirectorySystem

from .conftest import Host
from .standin_system import StandinSystem

PROGRAMS = ("usr/sbin/chpasswd", "usr/bin/chage", "usr/sbin/NetworkManager")


@pytest.fixture
def image(root: Path) -> Path:
    """An image in which everything works: a RHEL of today."""
    for program in PROGRAMS:
        write(root, program)
    write(root, "etc/os-release", 'ID="rhel"\nVERSION_ID="9.4"\n')
    write(root, "etc/login.defs", "PASS_MIN_LEN 8\n")
    (root / "usr/bin/python3").symlink_to("python3.9")
    (root / "usr/lib64/python3.9/site-packages/cryptography-36.0.1-py3.9.egg-info").mkdir(parents=True)
    for unit in (UNIT, "NetworkManager.service"):
        wants = root / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(parents=True, exist_ok=True)
        (wants / unit).symlink_to(f"/usr/lib/systemd/system/{unit}")
    write(root, "etc/xenward/agent.conf", "[update]\nkey = " + "A" * 43 + "=\n")
    (root / "var/lib").mkdir(parents=True)
    return root


def write(root: Path, name: str, content: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content)


def told(image: Path, what: str) -> list[tuple[str, str]]:
    return [(finding.state, finding.why) for finding in findings(str(image)) if finding.what == what]


def states(image: Path, what: str) -> list[str]:
    return [state for state, _ in told(image, what)]


def files(image: Path) -> dict[str, tuple[float, int]]:
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_mode) for path in image.rglob("*")}


def test_an_image_in_which_everything_works(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(image)
    assert main(str(image)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {OK}
    assert "ok       python         3.9" in lines
    assert "ok       cryptography   36.0" in lines
    assert files(image) == before


def test_for_programs(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image / "usr/sbin/chpasswd").unlink()
    assert main(str(image), as_json=True) == 1
    found = json.loads(capsys.readouterr().out)
    assert [row["what"] for row in found if row["state"] == MISSING] == ["chpasswd"]
    assert all(set(row) == {"state", "what", "why"} for row in found)


def test_no_such_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(str(tmp_path / "nothing")) == 1
    assert "is not a directory" in capsys.readouterr().out


def test_an_empty_directory_is_told_about_and_nothing_breaks(tmp_path: Path) -> None:
    missing = {finding.what for finding in findings(str(tmp_path)) if finding.state == MISSING}
    assert missing == {"python", "cryptography", "chpasswd", "network", "service"}


@pytest.mark.parametrize(("target", "state"), [("python3.8", MISSING), ("python3.13", OK), ("/opt/python", WARNING)])
def test_versions_of_python(image: Path, target: str, state: str) -> None:
    (image / "usr/bin/python3").unlink()
    (image / "usr/bin/python3").symlink_to(target)
    assert states(image, "python") == [state]


@pytest.mark.parametrize(
    ("name", "state"),
    [("cryptography-3.3.2.dist-info", MISSING), ("cryptography-3.4.8.dist-info", OK), ("cryptography_x.py", MISSING)],
)
def test_versions_of_cryptography(image: Path, name: str, state: str) -> None:
    packages = image / "usr/lib64/python3.9/site-packages"
    (packages / "cryptography-36.0.1-py3.9.egg-info").rename(packages / name)
    assert states(image, "cryptography") == [state]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[agent]\nblok = ping\n", "has no option blok"),
        ("[agent]\nblock = pong\n", "pong, and there is no such command"),
        ("[agent]\nstore = tcp:x\n", "a store is"),
        ("[network]\nstack = none\n", "must be one of"),
    ],
)
def test_a_configuration_with_which_the_agent_would_not_start(image: Path, content: str, why: str) -> None:
    write(image, "etc/xenward/agent.conf", content)
    ((state, said),) = told(image, "configuration")
    assert state == MISSING
    assert why in said


def test_a_configuration_that_others_can_write(image: Path) -> None:
    assert states(image, "ownership") == [OK, OK]
    (image / "etc/xenward/agent.conf").chmod(0o664)
    assert states(image, "ownership") == [OK, MISSING]
    (image / "etc/xenward").chmod(0o777)
    assert states(image, "ownership") == [MISSING, MISSING]


def test_an_identity_in_an_image(image: Path) -> None:
    assert states(image, "identity") == [OK]
    write(image, "var/lib/xenward/identity.json", "{}")
    ((state, why),) = told(image, "identity")
    assert state == WARNING
    assert "must not be" in why
    assert main(str(image)) == 0


def test_a_service_that_does_not_start(image: Path) -> None:
    (image / "etc/systemd/system/multi-user.target.wants" / UNIT).unlink()
    assert states(image, "service") == [MISSING]
    (image / "etc/runlevels/default").mkdir(parents=True)
    (image / "etc/runlevels/default/xenward-agent").symlink_to("/etc/init.d/xenward-agent")
    assert states(image, "service") == [OK]


def test_a_policy_that_does_not_hold_for_root(image: Path) -> None:
    assert told(image, "policy") == [(OK, "/etc/login.defs asks for 8 characters")]
    write(image, "etc/pam.d/system-auth", "password requisite pam_pwquality.so retry=3\n")
    assert states(image, "policy") == [OK, WARNING]
    write(image, "etc/security/pwquality.conf", "# enforce_for_root\n")
    assert states(image, "policy") == [OK, WARNING]
    write(image, "etc/security/pwquality.conf.d/own.conf", "enforce_for_root\n")
    assert states(image, "policy") == [OK, OK]


def test_cloud_init_that_owns_the_network(image: Path) -> None:
    write(image, "usr/bin/cloud-init")
    assert states(image, "cloud-init") == [WARNING]
    write(image, "etc/cloud/cloud.cfg.d/99.cfg", "network: {config: disabled}\n")
    assert states(image, "cloud-init") == [OK]


def test_a_distribution_that_nobody_knows(image: Path) -> None:
    write(image, "etc/os-release", "ID=plan9\n")
    assert states(image, "distribution") == [WARNING]
    assert states(image, "network") == [MISSING]
    write(image, "etc/xenward/agent.conf", "[network]\nstack = networkmanager\n")
    assert states(image, "network") == [OK]


def test_labels_of_an_image(image: Path) -> None:
    write(image, "etc/selinux/config", "SELINUX=enforcing\n")
    assert states(image, "selinux") == [WARNING]


def test_without_a_key_there_are_no_updates(image: Path) -> None:
    write(image, "etc/xenward/agent.conf")
    assert states(image, "updates") == [WARNING]


def test_a_name_cannot_steer_the_terminal(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(image, "etc/os-release", "ID='\x1b[2J'\n")
    main(str(image))
    assert "\x1b" not in capsys.readouterr().out


def test_a_check_that_fails_is_told_and_the_others_go_on(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(guest: Guest) -> Iterator[Finding]:
        raise OSError("the disk is gone")

    others = findings(str(image))
    monkeypatch.setattr("guest_agent.check.CHECKS", (("first", broken), *CHECKS))
    assert findings(str(image)) == [Finding(MISSING, "first", "the disk is gone"), *others]


def test_the_store_that_is_named(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = DirectorySystem(str(image))
    monkeypatch.setattr(Guest, "is_running", True)
    check = dict(CHECKS)["xenstore"]
    assert next(check(Guest(system, f"unix:{image}"))).state == OK
    assert next(check(Guest(system, f"unix:{image}/nowhere"))).state == MISSING


def test_where_the_identity_cannot_be_kept(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # For the superuser, who may run the tests, no mode is in the way.
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).endswith("var/lib"))
    assert states(image, "identity") == [MISSING]


def neutral(monkeypatch: pytest.MonkeyPatch, store: str | None = None) -> dict[str, Finding]:
    """What is found on a system that is none of Linux's."""
    system = StandinSystem()
    system.configuration = b"[agent]\nstore = unix:/nowhere\n"
    monkeypatch.setattr("guest_agent.system.choose", lambda root: system)
    return {finding.what: finding for finding in findings("/", store)}


def test_a_system_whose_files_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = neutral(monkeypatch)
    assert list(found) == list(NEUTRAL)
    assert {what: finding.state for what, finding in found.items()} == {
        "python": OK,
        "cryptography": OK,
        "xenstore": MISSING,
        "configuration": OK,
        "updates": WARNING,
    }
    assert found["configuration"].why == f"{StandinSystem.configuration_name} is valid"
    assert "cannot connect" in found["xenstore"].why


def test_its_store_is_tried(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"unix:{host.guest_socket}"
    assert neutral(monkeypatch, where)["xenstore"] == Finding(OK, "xenstore", where)
