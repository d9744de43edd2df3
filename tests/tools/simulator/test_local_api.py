"""The API inside of dom0: what a plugin reaches with XenAPI.xapi_local(), as it does on a real host."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import XenAPI

from tests.interpreters import interpreter, minors
from tools.simulator import in_dom0, local_api
from tools.simulator.process import SimulatorProcess
from tools.simulator.rpc import MethodCall, Result

from .support import Vm, failure

PLUGIN = """#!{python}
import subprocess
import sys
import xmlrpc.client

import XenAPI


def by_login(handle):
    session = XenAPI.xapi_local()
    session.login_with_password("anybody", "anything")
    try:
        return [session.xenapi.session.get_auth_user_name(session.handle), *names(session)]
    finally:
        session.xenapi.session.logout()


def by_handle(handle):
    session = XenAPI.xapi_local()
    session._session = handle
    return names(session)


def by_child(handle):
    command = "import sys, XenAPI; s = XenAPI.xapi_local(); s._session = sys.argv[1]; print(len(s.xenapi.VM.get_all()))"
    return subprocess.check_output([sys.executable, "-c", command, handle]).decode().split()


def names(session):
    return sorted(record["name_label"] for record in session.xenapi.VM.get_all_records().values())


(handle, arguments), function = xmlrpc.client.loads(sys.argv[1])
try:
    answer = {{"Status": "Success", "Value": repr(globals()[function](handle))}}
except XenAPI.Failure as error:
    answer = {{"Status": "Failure", "ErrorDescription": error.details}}
print(xmlrpc.client.dumps((answer,), methodresponse=True))
"""
"""Written as for a real dom0, with the SDK as it is."""


@pytest.fixture(scope="module")
def local(simulator: SimulatorProcess) -> Iterator[str]:
    """The name of the plugin."""
    path = simulator.plugins / "local"
    path.write_text(PLUGIN.format(python=sys.executable), "utf-8")
    path.chmod(0o755)
    yield path.name
    path.unlink()


def test_a_plugin_reads_the_vms(local: str, session: XenAPI.Session, vm: Vm) -> None:
    host = session.xenapi.host.get_all()[0]
    names = sorted(record["name_label"] for record in session.xenapi.VM.get_all_records().values())
    assert eval(session.xenapi.host.call_plugin(host, local, "by_handle", {})) == names
    # Whatever name and password are given, it is root who logs in.
    assert eval(session.xenapi.host.call_plugin(host, local, "by_login", {})) == ["root", *names]
    # What a plugin starts is in the same dom0.
    assert eval(session.xenapi.host.call_plugin(host, local, "by_child", {})) == [str(len(names))]


def test_errors_reach_the_plugin(local: str, session: XenAPI.Session) -> None:
    host = session.xenapi.host.get_all()[0]
    assert failure(session.xenapi.host.call_plugin, host, local, "missing", {})[0] == "XENAPI_PLUGIN_FAILURE"


def test_nobody_else_gets_in(simulator: SimulatorProcess) -> None:
    directory = simulator.state / "dom0"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_ISSOCK((directory / "xapi").stat().st_mode)
    # Over TCP it stays as it was.
    stranger = XenAPI.Session(simulator.url)
    assert failure(stranger.login_with_password, "root", "anything")[0] == "SESSION_AUTHENTICATION_FAILED"
    stranger("close")()


def test_a_dead_simulator_s_socket_is_no_obstacle(arguments: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        with SimulatorProcess([*arguments, "--state", str(tmp_path)]) as simulator:
            process = simulator._process
            assert process is not None
            process.kill()
            process.wait()
        assert (tmp_path / "dom0/xapi").exists()
    with SimulatorProcess([*arguments, "--state", str(tmp_path)]):
        pass
    assert not (tmp_path / "dom0/xapi").exists()


# Its parts


def test_only_logins_are_changed() -> None:
    calls: list[MethodCall] = []

    def answer(call: MethodCall) -> Result:
        calls.append(call)
        return Result("")

    root = local_api.as_root(answer, lambda: ("name", "password"))
    for name in ("session.login_with_password", "session_login_with_password"):
        root(MethodCall(name, ["x", "y", "1.0", "tests"]))
        assert calls.pop() == MethodCall(name, ["name", "password", "1.0", "tests"])
    root(MethodCall("session.slave_local_login_with_password", ["x", "y"]))
    assert calls.pop().parameters == ["name", "password"]
    for call in (
        MethodCall("session.login_with_password", ["x"]),
        MethodCall("session.change_password", ["session", "x", "y"]),
        MethodCall("VM.login_with_password", ["x", "y"]),
        MethodCall("login_with_password", ["x", "y"]),
    ):
        root(call)
        assert calls.pop() == call


PROBE = """
import {first}
import sys
before = "socket" in sys.modules
import socket
for address in ("/var/lib/xcp/xapi", b"/var/lib/xcp/xapi"):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(address)
    assert client.recv(5) == b"hello"
    other = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    assert other.connect_ex(address) == 0
    assert other.recv(5) == b"hello"
try:
    socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect("/var/lib/xcp/xapi.other")
except OSError:
    pass
else:
    raise AssertionError
assert socket.__spec__.loader is socket.__loader__
assert type(socket.__loader__).__name__ == "SourceFileLoader"
import XenAPI
print(before, XenAPI.__file__)
"""


@pytest.fixture
def dom0(tmp_path: Path) -> Iterator[Path]:
    """A directory that stands for a dom0, where something listens that says hello."""
    local_api.lay_out(tmp_path / "dom0")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "dom0/xapi"))
        server.listen(16)
        child = os.fork()
        if child == 0:
            while True:
                server.accept()[0].sendall(b"hello")
        yield tmp_path / "dom0"
        os.kill(child, 9)
        os.waitpid(child, 0)


def run(python: str, script: str, dom0: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/bin", "PYTHONPATH": str(local_api.python_path(dom0))}
    return subprocess.run(
        [python, *flags, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def probe(python: str, dom0: Path) -> None:
    done = run(python, PROBE.format(first="sys"), dom0)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.split() == ["False", str(dom0 / "python/XenAPI/__init__.py")]


def test_the_well_known_path(dom0: Path) -> None:
    probe(sys.executable, dom0)
    # An isolated interpreter ignores all of it.
    done = run(sys.executable, "import sys; print('sitecustomize' in sys.modules, len(sys.meta_path))", dom0, "-I")
    assert done.stdout.split()[0] == "False"


@pytest.mark.services
@pytest.mark.parametrize("minor", minors())
def test_every_python(dom0: Path, minor: int) -> None:
    probe(interpreter(minor), dom0)


def test_a_socket_module_that_is_there_already(tmp_path: Path, dom0: Path) -> None:
    # As when a .pth file of the interpreter imports it: that is before any sitecustomize.
    path = local_api.python_path(dom0) / "sitecustomize.py"
    path.write_text("import socket\n" + path.read_text())
    done = run(sys.executable, PROBE.format(first="sys"), dom0)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "True"


def test_the_machine_s_own_sitecustomize_runs(tmp_path: Path, dom0: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/sitecustomize.py").write_text("import sys\nsys.own = True\n")
    environment = {"PYTHONPATH": f"{local_api.python_path(dom0)}:{tmp_path / 'own'}"}
    script = "import sys; print(sys.own)"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]


def test_nothing_is_imported_for_it(dom0: Path) -> None:
    script = "import sys; print(*sorted(set(sys.modules) - {'sitecustomize'}))"
    with_it = run(sys.executable, script, dom0).stdout
    environment = {"PATH": "/bin"}
    without = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert set(with_it.split()) <= set(without.stdout.split())


def test_it_is_the_module_that_is_laid_out(dom0: Path) -> None:
    assert (dom0 / "python/sitecustomize.py").read_text() == Path(in_dom0.__file__).read_text()
    # Imported under its own name it changes nothing.
    assert type(sys.meta_path[0]).__name__ != "_Finder"
    assert sorted(path.name for path in (dom0 / "python/XenAPI").iterdir() if path.name != "__pycache__") == [
        "XenAPI.py",
        "__init__.py",
    ]
