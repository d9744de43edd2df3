from __future__ import annotations

from pathlib import Path

import pytest

from agent_protocol.xenstore import Client, StoreClosed
from guest_agent import store

from ..conftest import Host
from ..memory_store import MemoryStore


def test_unix_socket() -> None:
    assert store.store_path("unix:/run/x y") == "/run/x y"


@pytest.mark.parametrize("where", ["", "unix:", "/dev/xen/xenbus", "tcp:1"])
def test_anything_else_is_refused(where: str) -> None:
    with pytest.raises(ValueError, match="unix:PATH or xenbus"):
        store.store_path(where)
    with pytest.raises(ValueError, match="unix:PATH or xenbus"):
        store.check_store(where)
    with pytest.raises(ValueError, match="unix:PATH or xenbus"):
        store.open_store(where)


@pytest.mark.parametrize("where", ["unix:/x", "xenbus", "xeniface", "wmi", "windows"])
def test_names_of_stores(where: str) -> None:
    assert store.check_store(where) == where


def test_a_socket(host: Host) -> None:
    opened = store.open_store(f"unix:{host.guest_socket}")
    assert isinstance(opened, Client)
    assert opened.read("vm").startswith(b"/vm/")
    opened.close()
    with pytest.raises(StoreClosed):
        store.open_store("unix:/nowhere")


@pytest.mark.parametrize("where", ["xeniface", "wmi", "windows"])
def test_an_interface_of_windows(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    found = MemoryStore()

    def open_windows_store(where: str) -> MemoryStore:
        asked.append(where)
        return found

    monkeypatch.setattr("guest_agent.store.windows.open_windows_store", open_windows_store)
    assert store.open_store(where) is found
    assert asked == [where]


@pytest.mark.parametrize("where", ["xeniface", "wmi", "windows"])
def test_no_windows_here(where: str) -> None:
    with pytest.raises(StoreClosed):
        store.open_store(where)


def test_xenbus_prefers_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device, old = tmp_path / "dev", tmp_path / "proc"
    monkeypatch.setattr(store, "XENBUS_DEVICES", (str(device), str(old)))
    assert store.store_path("xenbus") == str(device)
    old.touch()
    assert store.store_path("xenbus") == str(old)
    device.touch()
    assert store.store_path("xenbus") == str(device)
