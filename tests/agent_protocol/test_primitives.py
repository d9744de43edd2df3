from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_protocol import primitives
from agent_protocol.messages import MessageError
from agent_protocol.outcomes import Failed
from agent_protocol.primitives import UNAVAILABLE, check_loaded, guarded, missing


class Panic(BaseException):
    """As those of compiled code are."""


def test_it_is_loaded() -> None:
    assert missing() is None
    check_loaded()
    with pytest.raises(AttributeError):
        _ = primitives.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [RuntimeError("s3cret"), ValueError("s3cret"), Panic("s3cret"), OSError(5, "s3cret")])
def test_whatever_is_raised_becomes_an_answer(error: BaseException) -> None:
    @guarded
    def work() -> None:
        raise error

    with pytest.raises(Failed) as raised:
        work()
    assert raised.value.code == UNAVAILABLE
    assert str(raised.value) == f"cryptography does not work here ({type(error).__name__} in work)"
    assert raised.value.__suppress_context__


@pytest.mark.parametrize("error", [MessageError("words"), Failed("code", "words"), KeyboardInterrupt(), SystemExit(3)])
def test_what_comes_through(error: BaseException) -> None:
    @guarded
    def work() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        work()
    assert raised.value is error


def test_results_come_through() -> None:
    @guarded
    def double(number: int, *, plus: int = 0) -> int:
        """What it does."""
        return 2 * number + plus

    assert double(2, plus=1) == 5
    assert (double.__name__, double.__doc__) == ("double", "What it does.")


IMPORT_ALL = """
import importlib, pkgutil, sys
import agent_protocol
for found in pkgutil.iter_modules(agent_protocol.__path__, "agent_protocol."):
    importlib.import_module(found.name)
from agent_protocol import digests, hpke, identity, legacy, primitives
from agent_protocol.outcomes import Failed
print(primitives.missing(), hpke.HAS_LIBRARY)
for attempt in (
    lambda: digests.sha256(b""), lambda: digests.hmac_sha256(b"", b""), identity.Identity.generate,
    lambda: identity.Identity.from_private_bytes(bytes(32)), lambda: hpke.seal(bytes(32), b"", b""),
    lambda: legacy.AgentExchange().accept("25"), lambda: legacy.AgentExchange().open(""),
    lambda: legacy.HostExchange().seal("x", "25"), lambda: primitives.AESGCM(bytes(32)),
    lambda: primitives.X25519PrivateKey.generate(),
):
    try:
        attempt()
    except Failed as error:
        print(error.code)
"""


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('first\\nsecond')", "ImportError: first second"),
        ("raise OSError(5, 'no')", "OSError: [Errno 5] no"),
        ("class P(BaseException): pass\nraise P('p')", "P: p"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise RuntimeError('x' * 1000)", ("RuntimeError: " + "x" * 1000)[:300]),
    ],
)
def test_everything_can_be_imported_without_cryptography(tmp_path: Path, code: str, reason: str) -> None:
    (tmp_path / "cryptography").mkdir()
    (tmp_path / "cryptography/__init__.py").write_text(code)
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{reason} False", *[UNAVAILABLE] * 10]


def test_an_interrupt_is_one(tmp_path: Path) -> None:
    (tmp_path / "cryptography").mkdir()
    (tmp_path / "cryptography/__init__.py").write_text("raise KeyboardInterrupt")
    assert run(tmp_path).returncode == -signal.SIGINT


def run(directory: Path) -> Any:
    environment = {"PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
    repository = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=repository, env=environment, capture_output=True, text=True, check=False
    )
