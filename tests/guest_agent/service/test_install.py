"""Installing into an image, as an ordinary user and without running anything of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent_protocol.outcomes import Refused
from guest_agent import service
from guest_agent.service.install import install, main, uninstall

PROGRAM = "usr/local/sbin/xenward-agent"
UNIT = "etc/systemd/system/xenward-agent.service"
LINK = "etc/systemd/system/multi-user.target.wants/xenward-agent.service"


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or path.is_file()}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image with systemd."""
    image = tmp_path / "image"
    (image / "usr/lib/systemd").mkdir(parents=True)
    (image / "usr/lib/systemd/systemd").touch()
    return image


def openrc(image: Path) -> None:
    (image / "usr/lib/systemd/systemd").unlink()
    (image / "sbin").mkdir()
    (image / "sbin/openrc-run").touch()


def test_with_systemd(image: Path) -> None:
    before = files(image)
    install(str(image), b"the program")
    assert files(image) - before == {PROGRAM, UNIT, LINK, "etc/xenward/agent.conf"}
    assert (image / PROGRAM).read_bytes() == b"the program"
    assert (image / PROGRAM).stat().st_mode & 0o777 == 0o755
    assert f"ExecStart=/{PROGRAM}\n" in (image / UNIT).read_text()
    assert str((image / LINK).readlink()) == f"/{UNIT}"
    assert (image / "etc/xenward/agent.conf").read_bytes() == service.read(service.CONFIGURATION)
    uninstall(str(image))
    assert files(image) == before
    assert not (image / "etc/xenward").exists()


def test_with_openrc(image: Path) -> None:
    openrc(image)
    before = files(image)
    install(str(image), b"the program")
    script, link = "etc/init.d/xenward-agent", "etc/runlevels/default/xenward-agent"
    assert files(image) - before == {PROGRAM, script, link, "etc/xenward/agent.conf"}
    assert (image / script).stat().st_mode & 0o777 == 0o755
    assert f'command="/{PROGRAM}"' in (image / script).read_text()
    uninstall(str(image))
    assert files(image) == before


def test_again_replaces_the_program_and_keeps_the_configuration(image: Path) -> None:
    install(str(image), b"old")
    (image / "etc/xenward/agent.conf").write_text("[agent]\nblock = ping\n")
    install(str(image), b"new")
    assert (image / PROGRAM).read_bytes() == b"new"
    assert (image / "etc/xenward/agent.conf").read_text() == "[agent]\nblock = ping\n"


def test_the_identity_stays_and_all_else_goes(image: Path) -> None:
    install(str(image), b"the program")
    state = image / "var/lib/xenward"
    (state / "update/1.0.0").mkdir(parents=True)
    (state / "identity.json").write_text("{}")
    (state / "network-undo.json").write_text("{}")
    (image / "run/xenward").mkdir(parents=True)
    uninstall(str(image))
    assert [path.name for path in state.iterdir()] == ["identity.json"]
    assert not (image / "run/xenward").exists()


def test_no_link_leads_out_of_the_image(image: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "xenward-agent").write_text("not yours")
    (image / "usr/local").mkdir()
    (image / "usr/local/sbin").symlink_to(outside)
    (image / "var/lib").mkdir(parents=True)
    (image / "var/lib/xenward").symlink_to(outside)
    with pytest.raises(Refused):
        # An absolute link means the image's own directory of that name, which is in the way of nothing outside.
        (image / str(outside).lstrip("/")).parent.mkdir(parents=True)
        (image / str(outside).lstrip("/")).write_text("")
        install(str(image), b"the program")
    uninstall(str(image))
    assert (outside / "xenward-agent").read_text() == "not yours"


@pytest.mark.parametrize("action", ["--install", "--uninstall"])
def test_a_packaged_agent_is_left_alone(image: Path, action: str, capsys: pytest.CaptureFixture[str]) -> None:
    (image / "usr/lib/xenward-agent/guest_agent").mkdir(parents=True)
    (image / "usr/lib/xenward-agent/guest_agent/__init__.py").touch()
    before = files(image)
    assert main([action, "--root", str(image)], Path(__file__)) == 1
    assert "a package of the agent is installed" in capsys.readouterr().err
    assert files(image) == before


def test_without_a_service_manager_nothing_is_written(image: Path) -> None:
    (image / "usr/lib/systemd/systemd").unlink()
    with pytest.raises(Refused) as caught:
        install(str(image), b"the program")
    assert caught.value.code == "no_service_manager"
    assert files(image) == set()


def test_the_command_line(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "xenward-agent.pyz"
    program.write_bytes(b"it")
    assert main(["--install", "--root", str(image)], program) == 0
    assert f"wrote /{PROGRAM}\n" in capsys.readouterr().out
    assert main(["--install", "--root", str(tmp_path / "nowhere")], program) == 1
    with pytest.raises(SystemExit) as ended:
        main(["--install", "--uninstall"], program)
    assert ended.value.code == 2


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), subprocess.TimeoutExpired("systemctl", 60)])
def test_a_service_manager_that_does_not_answer_is_no_success(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    (image / "run/systemd/system").mkdir(parents=True)
    monkeypatch.setattr("guest_agent.service.install._is_running_system", lambda root: True)

    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    (tmp_path / "agent.pyz").write_bytes(b"it")
    assert main(["--install", "--root", str(image)], tmp_path / "agent.pyz") == 1
    assert "systemctl restart" in capsys.readouterr().out
