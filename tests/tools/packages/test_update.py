"""The builder of updates: complete, reproducible, and what it signs is what agents take."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from agent_protocol.outcomes import Refused
from guest_agent import VERSION
from guest_agent.commands.arguments import MAX_FILE
from guest_agent.configuration import parse_configuration
from guest_agent.update.artefact import read_artefact
from guest_agent.update.statement import verify
from tools.packages import update
from tools.packages.update import build, main

ROOT = Path(__file__).parents[3]
KEY = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
WORD = "geheim-9f"


def pem(path: Path, encryption: KeySerializationEncryption | None = None) -> Path:
    path.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))
    return path


def test_everything_of_the_agent_is_in_it() -> None:
    version, content = build()
    read = read_artefact(content)
    assert (version, read.version, read.python) == (VERSION, VERSION, 9)
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for package in ("agent_protocol", "guest_agent")
        for path in (ROOT / package).rglob("*.py")
    }
    assert read.files == sources
    # So that a host can send it, where a guest has no network.
    assert len(content) < MAX_FILE


def test_the_agent_that_it_needs_is_that_of_the_distribution() -> None:
    assert f"python_requires = {update.PYTHON}\n" in (ROOT / "setup.cfg").read_text()


def test_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--key", str(pem(tmp_path / "key.pem")), str(tmp_path / "dist")]) == 0
    artefact = tmp_path / "dist" / f"xenward-agent-{VERSION}.update"
    assert capsys.readouterr().out == f"{artefact}\n"
    arguments = json.loads(artefact.with_name(artefact.name + ".json").read_text())
    assert arguments.keys() == {"version", "sha256", "signature"}
    assert arguments["sha256"] == hashlib.sha256(artefact.read_bytes()).hexdigest()
    # With the key as the guest's configuration has it.
    assert main(["--key", str(tmp_path / "key.pem"), "--public-key"]) == 0
    public = capsys.readouterr().out.strip()
    key = parse_configuration(f"[update]\nkey = {public}\n".encode()).update_key
    assert key == base64.b64decode(public)
    verify(key or b"", arguments["version"], arguments["sha256"], arguments["signature"])


def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    key = str(pem(tmp_path / "key.pem"))
    command = [sys.executable, "-m", "tools.packages.update", "--key", key]
    for number in range(2):
        environment = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": str(number), "TZ": f"UTC{number}"}
        subprocess.run([*command, str(tmp_path / f"{number}")], check=True, cwd=ROOT, env=environment, timeout=60)
    first, second = (sorted((tmp_path / f"{number}").iterdir()) for number in range(2))
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_passphrase_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = str(pem(tmp_path / "key.pem", BestAvailableEncryption(WORD.encode())))
    asked = []

    def getpass(prompt: str) -> str:
        asked.append(prompt)
        return WORD if len(asked) == 1 else "wrong"

    monkeypatch.setattr("getpass.getpass", getpass)
    assert main(["--key", key, "--public-key"]) == 0
    assert asked == [f"Passphrase of {key}: "]
    assert main(["--key", key, "--public-key"]) == 1
    assert WORD not in str(capsys.readouterr())


def test_keys_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.pem"
    curve = generate_private_key(SECP256R1())
    other.write_bytes(curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"no key")
    for path in (other, garbage, tmp_path / "missing.pem"):
        assert main(["--key", str(path), str(tmp_path / "dist")]) == 1
        assert "cannot be used as the signing key" in capsys.readouterr().err
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize("arguments", [[], ["dist", "--public-key"]])
def test_one_thing_at_a_time(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--key", str(tmp_path / "key.pem"), *arguments])
    assert ended.value.code == 2


def test_what_agents_would_refuse_is_not_built(tmp_path: Path) -> None:
    for package in ("agent_protocol", "guest_agent"):
        shutil.copytree(ROOT / package, tmp_path / package)
    init = tmp_path / "guest_agent/__init__.py"
    good = init.read_text()
    init.write_text(re.sub('VERSION = "[^"]*"', 'VERSION = "2.0.0"', good))
    assert build(tmp_path)[0] == "2.0.0"
    init.write_text(good.replace("VERSION", "VERSIONS"))
    with pytest.raises(Refused, match="its version is none"):
        build(tmp_path)
    init.write_text(good)
    (tmp_path / "guest_agent/Windows.py").write_text("")
    with pytest.raises(Refused, match=r"Windows\.py"):
        build(tmp_path)
