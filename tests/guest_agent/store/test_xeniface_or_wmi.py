"""How one of the two is chosen."""

from __future__ import annotations

import logging

import pytest

from agent_protocol.xenstore import StoreClosed
from guest_agent.store import windows
from guest_agent.store.base import Store
from guest_agent.store.windows import open_windows_store
from guest_agent.store.wmi import WmiStore
from guest_agent.store.xeniface import XenifaceStore

from .fake_device import FakeDevice, Tree
from .fake_wmi import FakeWmi
from .windows_contract import CASES, TOP, RealPlace, run


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Which of the two is there."""
    present = {"xeniface": True, "wmi": True}
    tree = Tree()

    def opened(name: str) -> Store:
        if not present[name]:
            raise StoreClosed(f"no {name} today")
        return XenifaceStore(FakeDevice(tree)) if name == "xeniface" else WmiStore(FakeWmi(tree), lambda number: True)

    monkeypatch.setattr(windows, "OPENERS", {name: lambda name=name: opened(name) for name in windows.OPENERS})
    monkeypatch.setattr(windows, "_told", set())
    return present


@pytest.mark.parametrize(
    ("where", "there", "kind"),
    [
        ("windows", ["xeniface", "wmi"], XenifaceStore),
        ("windows", ["wmi"], WmiStore),
        ("windows", ["xeniface"], XenifaceStore),
        ("xeniface", ["xeniface", "wmi"], XenifaceStore),
        ("wmi", ["xeniface", "wmi"], WmiStore),
    ],
)
def test_choice(present: dict[str, bool], where: str, there: list[str], kind: type) -> None:
    present.update({name: name in there for name in present})
    store = open_windows_store(where)
    assert type(store) is kind
    store.close()


def test_all_reasons_are_told(present: dict[str, bool]) -> None:
    present.update(xeniface=False, wmi=False)
    with pytest.raises(StoreClosed, match=r"^xeniface: no xeniface today; wmi: no wmi today$"):
        open_windows_store("windows")
    with pytest.raises(StoreClosed, match=r"^wmi: no wmi today$"):
        open_windows_store("wmi")
    present["wmi"] = True
    with pytest.raises(StoreClosed, match="no xeniface today"):
        open_windows_store("xeniface")


def test_the_choice_is_logged_once(present: dict[str, bool], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        present["xeniface"] = False
        for _ in range(3):
            open_windows_store("windows").close()
        present["xeniface"] = True
        for _ in range(3):
            open_windows_store("windows").close()
    assert [record.getMessage() for record in caplog.records] == [
        "the store is reached through wmi; not through xeniface: no xeniface today",
        "the store is reached through xeniface",
    ]


@pytest.mark.parametrize("where", ["", "unix:/run/x", "xenbus", "Windows"])
def test_other_names(where: str) -> None:
    with pytest.raises(ValueError, match="xeniface, wmi or windows"):
        open_windows_store(where)


def test_other_systems_have_neither() -> None:
    with pytest.raises(StoreClosed, match=r"xeniface: .*driver of Windows.*; wmi: .*part of Windows"):
        open_windows_store("windows")


@pytest.mark.parametrize("where", ["xeniface", "wmi"])
def test_the_contract_runs_by_itself(present: dict[str, bool], where: str, capsys: pytest.CaptureFixture[str]) -> None:
    place = RealPlace(where)
    assert run(place) == 0
    assert capsys.readouterr().out.splitlines() == [f"ok {name}" for name in CASES]
    assert place.get(TOP) is None
    place.close()


def test_the_contract_tells_failures(
    present: dict[str, bool], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(XenifaceStore, "directory", lambda self, path: ["wrong"])
    place = RealPlace("xeniface")
    failed = run(place)
    out = capsys.readouterr().out
    assert failed == out.count("failed ") > 0
    assert "AssertionError" in out
    place.close()
