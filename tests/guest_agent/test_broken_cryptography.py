"""A guest whose cryptography is broken, altogether or in one primitive: the agent serves, and answers every request.

The agent is a process of its own, with a package `cryptography` first on its path that fails in one way.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_protocol import hpke
from agent_protocol.agent_keys import _Key
from agent_protocol.frames import FRAMES
from agent_protocol.identity import Identity
from agent_protocol.legacy import AgentExchange, HostExchange
from agent_protocol.messages import ADVERT, parse_advert
from agent_protocol.outcomes import Failed, Outcome
from agent_protocol.primitives import UNAVAILABLE
from guest_agent import presence
from guest_agent.check import MISSING, Guest, _cryptography
from guest_agent.commands import COMMANDS, Context, features, served
from guest_agent.identity import own_identity
from guest_agent.presence import RETRY_SECONDS
from guest_agent.system.directory import DirectorySystem

from .conftest import ANNOUNCED, VM, AgentProcess, Host, agent_in_thread, wait_for
from .sealing import SealedHost
from .standin_system import StandinSystem

StartAgent = Callable[..., AgentProcess]

CLEAR = list(features(served(COMMANDS, (), DirectorySystem.lacks)))

NOT_LOADED = {
    "no compiled part": 'raise ImportError("DLL load failed while importing _rust")',
    "an unreadable library": 'raise OSError(5, "Input/output error")',
    "a panic": "class PanicException(BaseException): pass\nraise PanicException()",
    "an end of the process": "raise SystemError('initialization of _rust failed')",
}

PROXY = """
import importlib, os, sys
# The real package, with one part of it broken.
sys.path.remove(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
del sys.modules["cryptography"]
importlib.import_module("cryptography")

class Broken(BaseException):
    pass

class Breaking:
    def __init__(self, real, *names):
        self._real, self._names = real, names
    def __call__(self, *arguments, **options):
        if "__call__" in self._names:
            raise Broken("a secret that nobody may see")
        return Breaking(self._real(*arguments, **options), *self._names)
    def __getattr__(self, name):
        if name in self._names:
            def fail(*arguments, **options):
                raise Broken("a secret that nobody may see")
            return fail
        found = getattr(self._real, name)
        if name in ("generate", "from_private_bytes"):
            return lambda *arguments: Breaking(found(*arguments), *self._names)
        return found

def break_in(module, name, *methods):
    module = importlib.import_module("cryptography.hazmat.primitives." + module)
    setattr(module, name, Breaking(getattr(module, name), *methods))

"""

AT_START = {
    "Ed25519 makes no keys": 'break_in("asymmetric.ed25519", "Ed25519PrivateKey", "generate")',
    "Ed25519 does not sign": 'break_in("asymmetric.ed25519", "Ed25519PrivateKey", "sign")',
    "X25519 makes no keys": 'break_in("asymmetric.x25519", "X25519PrivateKey", "generate")',
}
"""What is broken so that nothing sealed can be served at all."""


def broken(directory: Path, code: str) -> dict[str, Any]:
    """Options for an agent that finds this in the place of cryptography."""
    package = directory / "broken" / "cryptography"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code + "\n")
    return {"prefix": ["env", f"PYTHONPATH={package.parent}", "PYTHONDONTWRITEBYTECODE=1"]}


def sealed_value(**members: object) -> str:
    """A sealed request of a host that does not know better: to a key from before."""
    return json.dumps({"v": 2, "key_id": "0" * 16, **members})


def assert_unavailable(reply: dict[str, Any]) -> None:
    assert (reply["outcome"], reply["code"], reply["returncode"]) == ("failed", UNAVAILABLE, "500")
    assert "nobody may see" not in str(reply)


def assert_serves_in_the_clear(host: Host, agent: AgentProcess) -> None:
    assert host.ask("version")["returncode"] == "0"
    assert host.ask("features")["message"].split(",") == CLEAR
    assert agent.process.poll() is None


@pytest.mark.parametrize("code", NOT_LOADED.values(), ids=list(NOT_LOADED))
def test_cryptography_that_cannot_be_loaded(start_agent: StartAgent, host: Host, tmp_path: Path, code: str) -> None:
    agent = start_agent(**broken(tmp_path, code))
    host.wait_for_agent()
    assert list(parse_advert(host.read(ADVERT) or b"").features) == CLEAR
    for _ in range(2):
        assert_serves_in_the_clear(host, agent)
        questions = {"keyinit": HostExchange().public, "password": "AAAA", "sealed": sealed_value(box="AAAA")}
        for name, value in questions.items():
            reply = host.ask(name, value)
            assert_unavailable(reply)
            assert "cryptography does not work here" in reply["message"]
    # What needs none of it works, and what needs some says so.
    path, content = base64.b64encode(b"/etc/f").decode(), base64.b64encode(b"x").decode()
    assert host.ask("file_inject", json.dumps({"b64_path": path, "b64_file": content}))["returncode"] == "0"
    put = {"path": "/etc/g", "content": content, "sha256": "0" * 64}
    assert_unavailable(host.ask("file_put", json.dumps(put)))
    host.assert_nothing_left()
    assert agent.end() == 0
    assert agent.log.count("sealed requests cannot be served") == 1
    assert "Traceback" not in agent.log


def test_frames_that_nobody_can_open_are_removed(start_agent: StartAgent, host: Host, tmp_path: Path) -> None:
    start_agent(**broken(tmp_path, NOT_LOADED["no compiled part"]))
    host.wait_for_agent()
    request_id = "00000000-0000-4000-8000-00000000000a"
    host.write(f"{FRAMES}/{request_id}/0", b"A" * 1900)
    host.send("sealed", sealed_value(frames={"count": 2, "size": 2000, "sha256": "0" * 64}), request_id)
    assert_unavailable(host.reply(request_id))
    host.assert_nothing_left()


@pytest.mark.parametrize("code", AT_START.values(), ids=list(AT_START))
def test_primitives_without_which_nothing_is_sealed(
    start_agent: StartAgent, host: Host, tmp_path: Path, root: Path, code: str
) -> None:
    # An identity that is there stays, for when cryptography works again.
    own = own_identity(DirectorySystem(str(root)), VM)
    agent = start_agent(**broken(tmp_path, PROXY + code))
    host.wait_for_agent()
    for _ in range(2):
        assert_serves_in_the_clear(host, agent)
        assert_unavailable(host.ask("sealed", sealed_value(box="AAAA")))
    # The old exchange needs neither of them.
    exchange = HostExchange()
    assert host.ask("password", exchange.seal("correct horse", host.ask("keyinit", exchange.public)["message"])) == {
        "returncode": "0",
        "message": "",
        "outcome": "succeeded",
    }
    assert agent.end() == 0
    assert "nobody may see" not in agent.log
    assert own_identity(DirectorySystem(str(root)), VM).public == own.public


def test_a_cipher_that_breaks_in_the_middle(start_agent: StartAgent, host: Host, tmp_path: Path) -> None:
    agent = start_agent(**broken(tmp_path, PROXY + 'break_in("ciphers", "Cipher", "decryptor")'))
    for _ in range(2):
        exchange = HostExchange()
        public = host.ask("keyinit", exchange.public)["message"]
        assert_unavailable(host.ask("password", exchange.seal("correct horse", public)))
    assert SealedHost(host).ask("ping").outcome is Outcome.SUCCEEDED
    assert agent.end() == 0


def test_answers_that_cannot_be_sealed(start_agent: StartAgent, host: Host, tmp_path: Path, root: Path) -> None:
    """The receipt tells how it ended, but never that it succeeded: that needs a box."""
    code = 'break_in("ciphers.aead", "AESGCM", "encrypt")'
    agent = start_agent(**broken(tmp_path, PROXY + code))
    sealed = SealedHost(host)
    for _ in range(2):
        put = sealed.seal("file_put", {"path": "/etc/f", "content": base64.b64encode(b"x").decode()})
        sealed.send(put)
        reply = host.reply(put.request_id)
        assert_unavailable(reply)
        assert reply["message"].startswith("the command was carried out, but what it returned cannot be sealed")
        assert (root / "etc/f").read_bytes() == b"x"
        (root / "etc/f").unlink()
        sealed.key = sealed.advert().key
        refused = sealed.ask("file_put", {"path": "etc", "content": ""})
        assert (refused.outcome, refused.code) == (Outcome.REFUSED, "bad_path")
        sealed.key = sealed.advert().key
    assert_serves(host, agent)


def test_requests_that_cannot_be_opened(start_agent: StartAgent, host: Host, tmp_path: Path) -> None:
    """By cryptography's own HPKE, which breaks, with an agent that can still sign."""
    assert hpke.HAS_LIBRARY
    code = 'break_in("hpke", "Suite", "decrypt")'
    agent = start_agent(**broken(tmp_path, PROXY + code))
    sealed = SealedHost(host)
    for _ in range(2):
        answered = sealed.ask("ping")
        assert (answered.outcome, answered.code) == (Outcome.FAILED, UNAVAILABLE)
        assert "could not open the request" in answered.message
    assert_serves(host, agent)


def test_a_checksum_that_breaks(start_agent: StartAgent, host: Host, tmp_path: Path) -> None:
    """Replies are checked by it too, so not even a receipt can be made of what was carried out."""
    agent = start_agent(**broken(tmp_path, PROXY + 'break_in("hashes", "Hash", "__call__")'))
    host.wait_for_agent()
    content = base64.b64encode(b"x").decode()
    assert_unavailable(host.ask("file_put", json.dumps({"path": "/etc/f", "content": content, "sha256": "0" * 64})))
    sealed = SealedHost(host)
    ping = sealed.seal("ping")
    sealed.send(ping)
    assert_unavailable(host.reply(ping.request_id))
    assert_serves(host, agent)


def assert_serves(host: Host, agent: AgentProcess) -> None:
    assert host.ask("version")["returncode"] == "0"
    assert host.ask("features")["message"].split(",") == list(ANNOUNCED)
    assert agent.end() == 0
    assert "nobody may see" not in agent.log


# What comes back, and what goes in the middle of an agent's life


def unavailable(*arguments: object) -> Any:
    raise Failed(UNAVAILABLE, "cryptography does not work here (for the moment)")


def test_it_is_tried_again(host: Host, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "own_identity", unavailable)
    with agent_in_thread(host, context, COMMANDS):
        host.wait_for_agent()
        assert_unavailable(host.ask("sealed", sealed_value(box="AAAA")))
        monkeypatch.undo()
        # With the next thing that happens.
        assert host.ask("version")["returncode"] == "0"
        host.wait(lambda: b'"signed"' in (host.read(ADVERT) or b""), "a signed advert")
        assert SealedHost(host).ask("ping").outcome is Outcome.SUCCEEDED


def test_whatever_goes_wrong_with_the_identity(
    host: Host, context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(*arguments: object) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(presence, "own_identity", wrong)
    with agent_in_thread(host, context, COMMANDS):
        host.wait_for_agent()
        reply = host.ask("sealed", sealed_value(box="AAAA"))
        assert (reply["outcome"], reply["code"]) == ("failed", "internal_error")
        assert host.ask("version")["returncode"] == "0"
    assert "ZeroDivisionError" in caplog.text


def test_keys_that_cannot_be_replaced(host: Host, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    with agent_in_thread(host, context, COMMANDS) as agent:
        sealed = SealedHost(host)
        assert sealed.ask("ping").outcome is Outcome.SUCCEEDED
        monkeypatch.setattr(_Key, "generate", classmethod(unavailable))
        for _ in range(2):
            answered = sealed.ask("ping")
            assert (answered.outcome, answered.code) == (Outcome.FAILED, UNAVAILABLE)
        # An old key must not keep the agent awake.
        keys = agent._presence.sealed
        assert keys is not None
        monkeypatch.setattr(keys._keys, "_clock", lambda: 2.0**40)
        assert host.ask("version")["returncode"] == "0"
        wait_for(lambda: not agent._presence._rotates)
        assert keys.seconds_until_rotation() == 0.0
        assert agent._presence.seconds_until_renewal() == RETRY_SECONDS
        assert host.ask("version")["returncode"] == "0"
        monkeypatch.undo()


def test_an_answer_that_meets_an_error_of_the_agents_own(
    host: Host, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with agent_in_thread(host, context, COMMANDS):
        sealed = SealedHost(host)

        def wrong(*arguments: object, **options: object) -> Any:
            raise ZeroDivisionError

        monkeypatch.setattr("guest_agent.sealed.seal_reply", wrong)
        ping = sealed.seal("ping")
        sealed.send(ping)
        reply = host.reply(ping.request_id)
        assert (reply["outcome"], reply["code"]) == ("failed", "internal_error")
        monkeypatch.undo()
        sealed.key = sealed.advert().key
        assert sealed.ask("ping").outcome is Outcome.SUCCEEDED


def test_an_identity_is_not_lost_for_want_of_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    system = StandinSystem()
    own = own_identity(system, VM)
    kept = dict(system.state)
    monkeypatch.setattr(Identity, "from_private_bytes", classmethod(unavailable))
    with pytest.raises(Failed) as raised:
        own_identity(system, VM)
    assert raised.value.code == UNAVAILABLE
    assert system.state == kept
    monkeypatch.undo()
    assert own_identity(system, VM).public == own.public


def test_no_key_is_agreed_on_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_protocol.primitives._reason", "ImportError: gone")
    with pytest.raises(Failed, match="ImportError: gone"):
        AgentExchange().accept(HostExchange().public)


def test_the_check_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_protocol.primitives._reason", "ImportError: gone")
    (found,) = _cryptography(Guest(StandinSystem(), None))
    assert (found.state, found.what) == (MISSING, "cryptography")
    assert "ImportError: gone" in found.why


def test_it_is_this_package_that_is_found(start_agent: StartAgent, host: Host, tmp_path: Path) -> None:
    """The tests above would prove nothing if the agent found the real one."""
    agent = start_agent(**broken(tmp_path, f"raise ImportError({str(tmp_path)!r})"))
    host.wait_for_agent()
    assert agent.end() == 0
    assert str(tmp_path) in agent.log
