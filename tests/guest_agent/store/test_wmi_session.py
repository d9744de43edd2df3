"""The part that calls pywin32, on a stand-in for pywin32: objects with the properties and methods that SWbem's have."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from agent_protocol.xenstore import StoreClosed
from guest_agent.store.base import Store
from guest_agent.store.wmi import connect
from guest_agent.store.wmi_connection import WmiError

from .fake_device import Tree
from .fake_wmi import FakeConnection, FakeWmi
from .windows_contract import CASES, Place

DISP_E_EXCEPTION = -2147352567
TIMED_OUT = 0x80043001
RPC_UNAVAILABLE = 0x800706BA


class ComError(Exception):
    """pywintypes.com_error."""

    def __init__(self, hresult: int, scode: int | None = None) -> None:
        super().__init__(hresult)
        self.hresult = hresult
        self.excepinfo = None if scode is None else (0, "SWbem", None, None, 0, scode)


class Win32Error(Exception):
    """pywintypes.error."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.winerror = code


def scripted(error: WmiError) -> ComError:
    """How the scripting objects raise it: as signed numbers, and behind DISP_E_EXCEPTION."""
    return ComError(DISP_E_EXCEPTION, error.hresult - (1 << 32))


class Properties:
    """SWbemPropertySet: called with a name, or iterated."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.all = {name: SimpleNamespace(Name=name, Value=value) for name, value in values.items()}

    def __call__(self, name: str) -> SimpleNamespace:
        return self.all.setdefault(name, SimpleNamespace(Name=name, Value=None))

    def __iter__(self) -> Iterator[SimpleNamespace]:
        return iter(self.all.values())


class Instance:
    """SWbemObject."""

    def __init__(self, values: Mapping[str, Any], run: Callable[[str, dict[str, str]], Any] | None = None) -> None:
        self.Properties_ = Properties(values)
        self._run = run

    def Methods_(self, name: str) -> SimpleNamespace:
        inputs = None if name == "EndSession" else SimpleNamespace(SpawnInstance_=lambda: Instance({}))
        return SimpleNamespace(Name=name, InParameters=inputs)

    def ExecMethod_(self, name: str, given: Instance | None = None) -> Instance | None:
        assert self._run is not None
        try:
            answer = self._run(name, {each.Name: each.Value for each in given.Properties_} if given else {})
        except WmiError as error:
            raise scripted(error) from None
        return Instance(answer) if answer else None


class Services:
    """SWbemServices of root\\wmi."""

    def __init__(self, wmi: FakeWmi) -> None:
        self._wmi = wmi
        self._connection = FakeConnection(wmi)
        self.Security_ = SimpleNamespace(ImpersonationLevel=0)

    def InstancesOf(self, name: str) -> Iterator[Instance]:
        assert self.Security_.ImpersonationLevel == 3
        prefix, _, kind = name.partition("XenStore")
        try:
            sessions = self._connection.sessions(prefix)
        except WmiError as error:
            # Not before somebody looks at them.
            raise scripted(error) from None
        if kind == "Base":
            yield Instance({}, lambda method, given: self._add(prefix, method, given))
        else:
            yield from (Instance({"SessionId": number, "Id": session}) for number, session in sessions)

    def ExecQuery(self, query: str) -> Iterator[Instance]:
        start, _, number = query.partition(" WHERE SessionId = ")
        prefix = start[len("SELECT * FROM ") : -len("XenStoreSession")]
        session = int(number)
        if session in self._wmi._sessions:
            yield Instance({}, lambda method, given: self._call(prefix, session, method, given))

    def ExecNotificationQuery(self, query: str, language: str, flags: int) -> SimpleNamespace:
        assert (language, flags) == ("WQL", 0x30)
        prefix = query[len("SELECT * FROM ") : -len("XenStoreWatchEvent")]
        try:
            events = self._wmi.subscribe(prefix)
        except WmiError as error:
            raise scripted(error) from None

        def next_event(milliseconds: int) -> Instance:
            try:
                path = events.next(milliseconds / 1000)
            except WmiError as error:
                raise scripted(error) from None
            if path is None:
                raise scripted(WmiError(TIMED_OUT))
            return Instance({"EventId": path})

        return SimpleNamespace(NextEvent=next_event)

    def _add(self, prefix: str, method: str, given: dict[str, str]) -> dict[str, int]:
        assert method == "AddSession"
        return {"SessionId": self._connection.add_session(prefix, given["Id"])}

    def _call(self, prefix: str, session: int, method: str, given: dict[str, str]) -> dict[str, Any]:
        answer = dict(self._connection.call(prefix, session, method, given))
        if "children" in answer:
            nodes = answer["children"]
            answer["children"] = Instance({"NoOfChildNodes": len(nodes), "ChildNodes": tuple(nodes)})  # type: ignore[arg-type]
        return answer


class Windows:
    """The modules of pywin32 as far as they are used; `apartments` counts the threads that are in COM."""

    def __init__(self) -> None:
        self.wmi = FakeWmi(Tree())
        self.apartments: list[int] = []
        self.refusal: ComError | None = None
        self.processes = {os.getpid(): True, 4711: True, 4712: False}
        self.modules = {
            "pythoncom": SimpleNamespace(
                COINIT_MULTITHREADED=0,
                CoInitializeEx=lambda flags: self.apartments.append(threading.get_ident()),
                CoUninitialize=lambda: self.apartments.remove(threading.get_ident()),
            ),
            "pywintypes": SimpleNamespace(com_error=ComError, error=Win32Error),
            "win32api": SimpleNamespace(OpenProcess=self._open_process),
            "win32con": SimpleNamespace(SYNCHRONIZE=0x100000),
            "win32event": SimpleNamespace(
                WAIT_TIMEOUT=258, WaitForSingleObject=lambda process, _: 258 if process.running else 0
            ),
            "winerror": SimpleNamespace(DISP_E_EXCEPTION=DISP_E_EXCEPTION, ERROR_INVALID_PARAMETER=87),
            "win32com": SimpleNamespace(),
            "win32com.client": SimpleNamespace(dynamic=SimpleNamespace(Dispatch=self._locator)),
        }

    def _locator(self, name: str) -> SimpleNamespace:
        assert name == "WbemScripting.SWbemLocator"

        def connect_server(machine: str, namespace: str) -> Services:
            assert (machine, namespace) == (".", "root\\wmi")
            if self.refusal is not None:
                raise self.refusal
            return Services(self.wmi)

        return SimpleNamespace(ConnectServer=connect_server)

    def _open_process(self, access: int, inherit: bool, number: int) -> SimpleNamespace:
        assert (access, inherit) == (0x100000, False)
        if number == 5:
            raise Win32Error(5)
        if number not in self.processes:
            raise Win32Error(87)
        return SimpleNamespace(running=self.processes[number], Close=lambda: None)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[Windows]:
    windows = Windows()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        for name, module in windows.modules.items():
            patch.setitem(sys.modules, name, module)
        patch.delitem(sys.modules, "guest_agent.store.wmi_session", raising=False)
        # It stays for as long as the patch does; monkeypatch removes what was not there before.
        importlib.import_module("guest_agent.store.wmi_session")
        patch.setattr(sys, "platform", "linux")
        yield windows
    sys.modules.pop("guest_agent.store.wmi_session", None)


class FakePlace:
    def __init__(self, windows: Windows) -> None:
        self.tree = windows.wmi.tree

    def open(self) -> Store:
        return connect()

    def get(self, path: str) -> bytes | None:
        return self.tree.get(path)

    def set(self, path: str, value: bytes) -> None:
        self.tree.put(path, value)

    def remove(self, path: str) -> None:
        self.tree.remove(path)


def assert_left(windows: Windows) -> None:
    """Every thread has left its apartment: soon, as nobody waits for the threads themselves."""
    deadline = time.monotonic() + 20
    while windows.apartments and time.monotonic() < deadline:
        time.sleep(0.01)
    assert windows.apartments == []


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_contract(windows: Windows, case: Callable[[Place], None]) -> None:
    case(FakePlace(windows))
    assert windows.wmi.session_names == []
    assert windows.wmi.misused == []
    assert_left(windows)


def test_each_thread_has_its_apartment(windows: Windows) -> None:
    store = connect()
    assert len(set(windows.apartments)) == 2
    assert threading.get_ident() not in windows.apartments
    store.close()
    assert_left(windows)


def test_refusals(windows: Windows) -> None:
    # ConnectServer raises some as they are, without DISP_E_EXCEPTION.
    for refusal in (ComError(RPC_UNAVAILABLE - (1 << 32)), scripted(WmiError(RPC_UNAVAILABLE))):
        windows.refusal = refusal
        with pytest.raises(StoreClosed, match=r"the WMI service is not available.*800706ba"):
            connect()
        assert_left(windows)


def test_no_classes(windows: Windows) -> None:
    windows.wmi.prefix = "Other"
    with pytest.raises(StoreClosed, match=r"Citrix.*80041010.*XenProject.*80041010"):
        connect()
    assert_left(windows)


def test_no_events(windows: Windows) -> None:
    windows.wmi.fail["subscribe"] = 0x80041003
    with pytest.raises(StoreClosed, match="80041003"):
        connect()
    assert (windows.apartments, windows.wmi.session_names) == ([], [])


def test_a_query_that_times_out_is_no_error(windows: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guest_agent.store.wmi.LISTENING", 0.01)
    store = connect()
    assert store.next_event(0.1) is None
    store.watch("data/a", "t")
    assert store.next_event(20.0) == ("data/a", "t")
    store.close()


def test_processes(windows: Windows) -> None:
    module: Any = sys.modules["guest_agent.store.wmi_session"]
    assert [module.process_is_running(number) for number in (4711, 4712, 4713, 5)] == [True, False, False, True]


def test_the_module_is_for_windows() -> None:
    with pytest.raises(ImportError, match="part of Windows"):
        importlib.import_module("guest_agent.store.wmi_session")
    with pytest.raises(ImportError, match="driver of Windows"):
        importlib.import_module("guest_agent.store.xeniface_device")
