"""host.call_plugin: what a plugin is given, and every row of what may come of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import XenAPI

from tools.simulator.process import SimulatorProcess

from .support import failure, lives, plugin, until


@pytest.fixture
def run(session: XenAPI.Session, simulator: SimulatorProcess) -> Any:
    """Runs a plugin that consists of the given lines."""
    (host,) = session.xenapi.host.get_all()
    names: list[str] = []

    def run(body: str, function: str = "f", arguments: dict[str, str] | None = None) -> str:
        names.append(f"test{len(names)}")
        plugin(simulator.plugins, names[-1], body)
        value: str = session.xenapi.host.call_plugin(host, names[-1], function, arguments or {})
        return value

    yield run
    for name in names:
        (simulator.plugins / name).unlink()


def refusal(run: Any, body: str) -> list[str]:
    return failure(run, body)


def test_what_a_plugin_is_given(run: Any, session: XenAPI.Session, simulator: SimulatorProcess) -> None:
    value = run(
        "(session, arguments), name = xmlrpc.client.loads(sys.argv[1])\n"
        "facts = [len(sys.argv), session, arguments, name, sorted(os.environ.items()), sys.stdin.read()]\n"
        "print(answer(repr(facts)))",
        "function",
        {"a": "<&>\"' ü", "empty": ""},
    )
    facts = eval(value)
    environment = dict(facts.pop(4))
    environment.pop("LC_CTYPE", None)
    assert environment == {
        "PATH": "/sbin:/usr/sbin:/bin:/usr/bin",
        "XENSTORED_PATH": str(simulator.xenstore_socket),
        "PYTHONPATH": str(simulator.state / "dom0/python"),
    }
    assert facts == [2, session.handle, {"a": "<&>\"' ü", "empty": ""}, "function", ""]


def test_values(run: Any) -> None:
    assert run("print(answer('a value <&>'))") == "a value <&>"
    assert run("print(answer(''))") == ""
    assert run("sys.stderr.write('noise'); print(answer('x'))") == "x"


def test_status_failure_passes_through(run: Any) -> None:
    assert refusal(run, "print(refuse('ANY_CODE', 'a', 'b'))") == ["ANY_CODE", "a", "b"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("print('out'); sys.stderr.write('err'); sys.exit(3)", ["non-zero exit", "out\n", "err"]),
        ("print(answer('x')); sys.exit(1)", ["non-zero exit", None, ""]),
        ("print('out', flush=True); os.kill(os.getpid(), signal.SIGKILL)", ["signal: SIGKILL", "out\n", ""]),
        ("os.kill(os.getpid(), signal.SIGTERM)", ["signal: SIGTERM", "", ""]),
        ("print('out', flush=True); os.kill(os.getpid(), signal.SIGSTOP)", ["task stopped", "out\n", ""]),
        ("print('debugging'); print(answer('x'))", ["failed to parse plugin output", None, None]),
        ("pass", ["failed to parse plugin output", "", None]),
        (
            "print(xmlrpc.client.dumps(xmlrpc.client.Fault(7, 'reason'), methodresponse=True))",
            ["fault", "7", "reason"],
        ),
        ("print(xmlrpc.client.dumps(('x',), methodresponse=True))", ["unexpected XMLRPC result", None]),
        (
            "print(xmlrpc.client.dumps(({'Status': 'Success'},), methodresponse=True))",
            ["unexpected XMLRPC result", None],
        ),
        ("print(refuse())", ["unexpected XMLRPC result", None]),
    ],
)
def test_plugin_failures(run: Any, body: str, expected: list[str | None]) -> None:
    details = refusal(run, body)
    assert details[0] == "XENAPI_PLUGIN_FAILURE"
    assert len(details) == len(expected) + 1
    for found, wanted in zip(details[1:], expected):
        assert wanted is None or found == wanted


@pytest.mark.parametrize("value", ["1", "True", "{}", "['x']", "1.5"])
def test_a_value_must_be_a_string(run: Any, value: str) -> None:
    assert refusal(run, f"print(answer({value}))")[0] == "INTERNAL_ERROR"


def test_programs_that_cannot_run(session: XenAPI.Session, simulator: SimulatorProcess) -> None:
    (host,) = session.xenapi.host.get_all()
    for name, content, mode in (
        ("not-executable", "#!/bin/sh\n", 0o644),
        ("no-interpreter", "#!/does/not/exist\n", 0o755),
        ("no-program", "\x7f", 0o755),
    ):
        path = simulator.plugins / name
        path.write_text(content)
        path.chmod(mode)
        details = failure(session.xenapi.host.call_plugin, host, name, "f", {})
        path.unlink()
        assert details[:3] == ["XENAPI_PLUGIN_FAILURE", "non-zero exit", ""]


def test_missing_plugin(session: XenAPI.Session, simulator: SimulatorProcess) -> None:
    (host,) = session.xenapi.host.get_all()
    (simulator.plugins.parent / "outside").write_text("#!/bin/sh\n")
    (simulator.plugins.parent / "outside").chmod(0o755)
    for name in ("nothing", "../outside", "", ".", "..", "/bin/sh", "xenward/", "xenward.py"):
        assert failure(session.xenapi.host.call_plugin, host, name, "f", {}) == ["XENAPI_MISSING_PLUGIN", name]
    assert failure(session.xenapi.host.call_plugin, "x", "xenward", "f", {}) == ["HANDLE_INVALID", "host", "x"]
    assert session.xenapi.host.call_plugin(host, "xenward", "f", {}) == "pong"


def test_an_argument_of_128_kib_is_too_long(run: Any) -> None:
    body = "print(answer('x'))"
    assert run(body, arguments={"a": "x" * 120_000}) == "x"
    with pytest.raises(XenAPI.Failure) as caught:
        run(body, arguments={"a": "x" * 132_000})
    assert caught.value.details[:2] == ["XENAPI_PLUGIN_FAILURE", "non-zero exit"]
    # What counts is the length after escaping.
    with pytest.raises(XenAPI.Failure):
        run(body, arguments={"a": "&" * 30_000})


def test_plugins_run_side_by_side(simulator: SimulatorProcess) -> None:
    # Each waits until all three have begun.
    folder = simulator.state / "meeting"
    folder.mkdir()
    plugin(
        simulator.plugins,
        "meet",
        f"import time\nopen({str(folder)!r} + '/' + str(os.getpid()), 'w').close()\n"
        f"deadline = time.monotonic() + 10\n"
        f"while len(os.listdir({str(folder)!r})) < 3 and time.monotonic() < deadline: time.sleep(0.01)\n"
        f"print(answer(str(len(os.listdir({str(folder)!r})))))",
    )
    results: list[str] = []

    def call() -> None:
        session = XenAPI.Session(simulator.url)
        session.login_with_password(simulator.username, simulator.password)
        (host,) = session.xenapi.host.get_all()
        results.append(session.xenapi.host.call_plugin(host, "meet", "f", {}))
        session("close")()

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    (simulator.plugins / "meet").unlink()
    assert results == ["3", "3", "3"]


def test_children_of_a_plugin_end_with_it(run: Any) -> None:
    body = (
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.pause()\n"
        "print(answer(str(child)))"
    )  # fmt: skip
    child = int(run(body))
    until(lambda: not lives(child))
