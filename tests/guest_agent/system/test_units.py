from __future__ import annotations

from pathlib import Path

import pytest

from guest_agent.system.units import is_enabled

UNIT = "netd.service"


@pytest.fixture
def booted(root: Path) -> Path:
    (root / "etc/systemd/system").mkdir(parents=True)
    (root / "etc/machine-id").write_text("0" * 32)
    return root


@pytest.mark.parametrize("directory", ["etc", "usr/lib", "lib"])
@pytest.mark.parametrize("kind", ["wants", "requires"])
def test_links(booted: Path, directory: str, kind: str) -> None:
    assert not is_enabled(str(booted), UNIT)
    links = booted / directory / f"systemd/system/multi-user.target.{kind}"
    links.mkdir(parents=True)
    (links / UNIT).symlink_to(f"/lib/systemd/system/{UNIT}")
    assert is_enabled(str(booted), UNIT)
    assert not is_enabled(str(booted), "other.service")


def test_masked(booted: Path) -> None:
    links = booted / "etc/systemd/system/multi-user.target.wants"
    links.mkdir()
    (links / UNIT).symlink_to(f"/lib/systemd/system/{UNIT}")
    (booted / "etc/systemd/system" / UNIT).symlink_to("/dev/null")
    assert not is_enabled(str(booted), UNIT)


def test_aliases(booted: Path) -> None:
    (booted / "etc/systemd/system/network.service").symlink_to(f"/usr/lib/systemd/system/{UNIT}")
    assert not is_enabled(str(booted), UNIT)
    assert is_enabled(str(booted), UNIT, "network.service")
    assert not is_enabled(str(booted), "d.service", "network.service")


@pytest.mark.parametrize(
    ("machine_id", "counts"), [(None, True), ("uninitialized\n", True), ("", False), ("0" * 32, False)]
)
def test_presets_count_before_the_first_boot(root: Path, machine_id: str | None, counts: bool) -> None:
    if machine_id is not None:
        (root / "etc/machine-id").write_text(machine_id)
    presets = root / "usr/lib/systemd/system-preset"
    presets.mkdir(parents=True)
    (presets / "90-default.preset").write_text("# all\nenable net*\n")
    assert is_enabled(str(root), UNIT) is counts


DISTRIBUTION, OLD, ADMINISTRATOR = (f"{start}/systemd/system-preset" for start in ("usr/lib", "lib", "etc"))


@pytest.mark.parametrize(
    ("files", "enabled"),
    [
        ({}, False),
        ({f"{DISTRIBUTION}/90.preset": "enable other.service\n"}, True),
        ({f"{DISTRIBUTION}/90.preset": "enable netd.service\ndisable *\n"}, True),
        ({f"{DISTRIBUTION}/90.preset": "disable *\nenable netd.service\n"}, False),
        ({f"{DISTRIBUTION}/90.preset": "enable *", f"{OLD}/1.preset": "disable *"}, False),
        ({f"{DISTRIBUTION}/9.preset": "enable *", f"{ADMINISTRATOR}/9.preset": "disable *"}, False),
        ({f"{ADMINISTRATOR}/9.conf": "enable *"}, False),
    ],
)  # fmt: skip
def test_presets(root: Path, files: dict[str, str], enabled: bool) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    assert is_enabled(str(root), UNIT) is enabled
