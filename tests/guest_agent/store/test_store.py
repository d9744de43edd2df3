from __future__ import annotations

from pathlib import Path

import pytest

from guest_agent import store


def test_unix_socket() -> None:
    assert store.store_path("unix:/run/x y") == "/run/x y"


@pytest.mark.parametrize("where", ["", "unix:", "/dev/xen/xenbus", "tcp:1"])
def test_anything_else_is_refused(where: str) -> None:
    with pytest.raises(ValueError, match="unix:PATH or xenbus"):
        store.store_path(where)


def test_xenbus_prefers_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, old = tmp_path / "dev", tmp_path / "proc"
    monkeypatch.setattr(store, "XENBUS_DEVICES", (str(device), str(old)))
    assert store.store_path("xenbus") == str(device)
    old.touch()
    assert store.store_path("xenbus") == str(old)
    device.touch()
    assert store.store_path("xenbus") == str(device)
