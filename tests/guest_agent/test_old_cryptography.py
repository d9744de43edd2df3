"""The agent on what distributions bring: the oldest Python that it runs on, and their releases of cryptography.

Debian 12 has 38.0.4, RHEL 9 36.0.1 (with this Python), Ubuntu 22.04 3.4.8. Nothing else is installed beside it.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent_protocol import hpke
from agent_protocol.adverts import SealingKey
from agent_protocol.legacy import HostExchange
from agent_protocol.outcomes import Outcome
from agent_protocol.raw_keys import raw_private, raw_public
from agent_protocol.sealed import seal_request
from tests.interpreters import interpreter

from .conftest import REPOSITORY, VM, AgentProcess, Host
from .sealing import SealedHost

PYTHON_MINOR = 9

RELEASES = ["3.4.8", "36.0.1", "38.0.4", "50.0.2"]
"""The last one is newer than every distribution's: it brings HPKE itself."""

VECTORS = REPOSITORY / "tests/agent_protocol/hpke_vectors.json"
KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
REQUEST_ID = "00000000-0000-4000-8000-00000000000a"

HASH = "$6$rounds=5000$saltsalt$" + "a" * 86


@pytest.fixture(params=RELEASES)
def python(request: pytest.FixtureRequest) -> str:
    """The interpreter of an environment with that release and nothing else; made once in a checkout."""
    place = REPOSITORY / ".venv-agents" / f"python3.{PYTHON_MINOR}-cryptography-{request.param}"
    place.parent.mkdir(exist_ok=True)
    with (place.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            subprocess.run([interpreter(PYTHON_MINOR), "-m", "venv", "--clear", str(place)], check=True)
            pip = [str(place / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, f"cryptography=={request.param}"], check=True)
            (place / "complete").touch()
    return str(place / "bin/python")


def run(python: str, script: str, told: dict[str, object]) -> dict[str, object]:
    """What a script of that interpreter answers to what it is told; only the checkout is there to import."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [python, "-W", "ignore", "-c", script],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


VECTORS_SCRIPT = """
import json, sys
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from agent_protocol import hpke

told = json.load(sys.stdin)
opened = sealed = 0
for vector in told["vectors"]:
    data = {name: bytes.fromhex(value) for name, value in vector.items() if isinstance(value, str)}
    first = {name: bytes.fromhex(vector["encryptions"][0][name]) for name in ("pt", "ct", "aad")}
    options = {"_key_size": len(data["key"]), "_associated_data": first["aad"]}
    private = X25519PrivateKey.from_private_bytes(data["skRm"])
    box = data["enc"] + first["ct"]
    opened += hpke.composed_open(private, data["info"], box, **options) == first["pt"]
    ephemeral = X25519PrivateKey.from_private_bytes(data["skEm"])
    sealed += hpke.composed_seal(data["pkRm"], data["info"], first["pt"], _ephemeral=ephemeral, **options) == box
bad = 0
for public in told["low_order"]:
    for attempt in (
        lambda: hpke.seal(bytes.fromhex(public), b"", b"x"),
        lambda: hpke.open_box(private, b"", bytes.fromhex(public) + bytes(48)),
    ):
        try:
            attempt()
        except hpke.Refused:
            bad += 1
print(json.dumps({"opened": opened, "sealed": sealed, "bad": bad}))
"""


@pytest.mark.services
def test_vectors_of_rfc_9180(python: str) -> None:
    from tests.agent_protocol.test_hpke import LOW_ORDER

    vectors = json.loads(VECTORS.read_text())["vectors"]
    shown = run(python, VECTORS_SCRIPT, {"vectors": vectors, "low_order": [key.hex() for key in LOW_ORDER]})
    assert shown == {"opened": len(vectors), "sealed": len(vectors), "bad": 2 * len(LOW_ORDER)}


OPEN_SCRIPT = """
import json, sys
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from agent_protocol import hpke
from agent_protocol.sealed import open_request

told = json.load(sys.stdin)
private = X25519PrivateKey.from_private_bytes(bytes.fromhex(told["private"]))
command = open_request(private, told["key_id"], told["vm"], told["request_id"], told["box"])
sealed = hpke.seal(bytes.fromhex(told["public"]), b"info", command.value.encode())
print(json.dumps({"name": command.name, "sealed": sealed.hex()}))
"""


@pytest.mark.services
def test_boxes_open_on_both_sides(python: str) -> None:
    public = raw_public(KEY.public_key())
    box = seal_request(SealingKey("0" * 16, public), VM, REQUEST_ID, "ping", "value", expires=2**33)
    told = {
        "private": raw_private(KEY).hex(),
        "public": public.hex(),
        "key_id": box.key_id,
        "vm": VM,
        "request_id": REQUEST_ID,
        "box": box.text,
    }
    shown = run(python, OPEN_SCRIPT, told)
    assert shown["name"] == "ping"
    assert hpke.open_box(KEY, b"info", bytes.fromhex(str(shown["sealed"]))) == b"value"


@pytest.mark.services
def test_the_agent(python: str, host: Host, root: Path, start_agent: Callable[..., AgentProcess]) -> None:
    agent = start_agent(interpreter=python)
    sealed = SealedHost(host)
    assert sealed.ask("ping").outcome is Outcome.SUCCEEDED
    assert sealed.ask("password", {"hash": HASH}).outcome is Outcome.SUCCEEDED
    assert f"root:{HASH}:" in (root / "etc/shadow").read_text()
    content = os.urandom(50_000)
    put = sealed.ask("file_put", {"path": "/etc/large", "content": base64.b64encode(content).decode()})
    assert put.outcome is Outcome.SUCCEEDED
    assert (root / "etc/large").read_bytes() == content
    # The old protocol's cipher, as far as it goes without a library for hashes.
    exchange = HostExchange()
    public = host.ask("keyinit", exchange.public)["message"]
    assert host.ask("password", exchange.seal("correct horse", public))["code"] == "no_hash_library"
    # What it seals for others, and the identity that it keeps.
    generated = sealed.ask("password_generate", {"hpke": base64.b64encode(raw_public(KEY.public_key())).decode()})
    assert generated.code == "no_hash_library"
    assert agent.end() == 0
    host.wait(lambda: host.children("data/xenward/claims") == [], "the end")
    start_agent(interpreter=python)
    again = SealedHost(host)
    assert again.identity == sealed.identity
    assert again.ask("ping").outcome is Outcome.SUCCEEDED


RSA_SCRIPT = """
import json, sys
from guest_agent.commands import generate

told = json.load(sys.stdin)
encrypt = generate._to_rsa(told["line"], told["padding"])
print(json.dumps({"ciphertext": encrypt("root", b"secret").hex()}))
"""


@pytest.mark.services
@pytest.mark.parametrize("padding", ["oaep", "pkcs1v15"])
def test_rsa_keys_of_ssh(python: str, padding: str) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding as paddings
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = rsa.generate_private_key(65537, 2048)
    line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    shown = run(python, RSA_SCRIPT, {"line": line, "padding": padding})
    oaep = paddings.OAEP(paddings.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    chosen = oaep if padding == "oaep" else paddings.PKCS1v15()
    assert private.decrypt(bytes.fromhex(str(shown["ciphertext"])), chosen) == b"secret"


def test_raw_keys_where_cryptography_does_not_give_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        """A key of a release before 40."""

        def __init__(self, key: object) -> None:
            self._key = key

        def __getattr__(self, name: str) -> object:
            if name.endswith("_raw"):
                raise AttributeError(name)
            return getattr(self._key, name)

    for key in (KEY, Ed25519PrivateKey.generate()):
        public = key.public_key()
        assert raw_private(Old(key)) == raw_private(key) == key.private_bytes_raw()  # type: ignore[arg-type]
        assert raw_public(Old(public)) == raw_public(public) == public.public_bytes_raw()  # type: ignore[arg-type]
