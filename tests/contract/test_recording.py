"""No secret crosses any edge in a form that can be read, and nothing that was recorded has an effect a second time."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from agent_protocol.messages import ADVERT
from agent_protocol.xenstore import Client, StoreError
from tests.databases import empty_database
from tools.commands import proof

from .house import CHECKOUT, SECONDS
from .recorder import RecordedHouse, RecordingProxy, leaks, needles, recorded_house
from .test_outcomes import ended
from .test_services import over_the_bus, service

FIRST = "Zw3-first.Secret/1"
SECOND = "Zw3-second.Secret/2"
REFUSED = "Zw3-refused.Secret/3"
NOBODYS = "Zw3-nobody.Secret/4"
MARK = b"Zw3: this file is nobody's business. "
"""A file's content repeats it, so that it stands at each alignment and in each frame."""

SMALL = MARK * 3
LARGE = (MARK * (2**20 // len(MARK) + 1))[: 2**20]


@pytest.fixture
def recorded(directory: Path) -> Iterator[RecordedHouse]:
    with recorded_house(directory) as it:
        yield it


class Secrets:
    """What a run gives away to nobody: `values` grows as it learns of more."""

    def __init__(self, outside: Path) -> None:
        self._login = Ed25519PrivateKey.generate()
        self._rsa = rsa.generate_private_key(65537, 2048)
        self.login_file, self.rsa_file = outside / "login.pub", outside / "rsa.pub"
        self.login_line = self._line(self._login)
        self.login_file.write_text(self.login_line + "\n")
        self.rsa_file.write_text(self._line(self._rsa) + "\n")
        self.small, self.large = outside / "small", outside / "large"
        self.small.write_bytes(SMALL)
        self.large.write_bytes(LARGE)
        prime = self._rsa.private_numbers().p
        self.values = [text.encode() for text in (FIRST, SECOND, REFUSED, NOBODYS)]
        self.values += [MARK, self._login.private_bytes_raw(), prime.to_bytes(128, "big")]
        pem = self._login.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).split(b"\n")
        self.values += [line for line in pem[1:-2] if len(line) > 60][-1:]

    @staticmethod
    def _line(key: Ed25519PrivateKey | rsa.RSAPrivateKey) -> str:
        return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

    def decrypt(self, ciphertext: str) -> str:
        oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
        return self._rsa.decrypt(base64.b64decode(ciphertext), oaep).decode()


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    return Secrets(tmp_path)


def whole_run(home: RecordedHouse, secrets: Secrets, searched: Callable[[], None]) -> None:
    """Every command there is, each proven in the guest; `searched` is called while the guest's own log still is."""
    created = home.verbose(
        "server", "create", "web", "--password-stdin", "--key-file", str(secrets.login_file),
        "--file", f"/etc/small={secrets.small}", stdin=FIRST + "\n",
    )  # fmt: skip
    assert created.status == 0, created
    instance = created.shown["uuid"]
    guest = home.guest(instance)
    assert home.opens(instance, FIRST)
    assert proof.key_is_authorized(guest, "root", secrets.login_line)
    assert (guest / "etc/small").read_bytes() == SMALL

    password = ("server", "password", "set", "web", "--password-stdin")
    assert home.verbose(*password, stdin=SECOND + "\n").status == 0
    assert home.opens(instance, SECOND)
    generated = home.verbose("server", "password", "generate", "web").shown["admin_password"]
    assert home.opens(instance, generated)
    made = home.verbose("server", "password", "generate", "web", "--ssh-key", str(secrets.rsa_file))
    for_rsa = secrets.decrypt(made.shown["ciphertext"])
    assert home.opens(instance, for_rsa)
    secrets.values += [generated.encode(), for_rsa.encode()]

    assert home.verbose("server", "file", "put", "web", str(secrets.small), "/opt/small").status == 0
    assert home.verbose("server", "file", "put", "web", str(secrets.large), "/opt/large").status == 0
    assert (guest / "opt/large").read_bytes() == LARGE
    assert home.verbose("agent", "show", "web").shown["protocol"] == "sealed"

    (guest / "etc/login.defs").write_text("PASS_MIN_LEN 30\n")
    ended(home.verbose(*password, stdin=REFUSED + "\n"), "refused", "password_policy")
    unknown = ("server", "password", "set", "nobody", "--password-stdin")
    ended(home.verbose(*unknown, stdin=NOBODYS + "\n"), "refused", "instance_not_found")
    for command in (("stop",), ("start",), ("reboot", "--hard")):
        assert home.verbose("server", *command, "web").status == 0
    assert home.opens(instance, for_rsa)
    searched()
    assert home.verbose("server", "delete", "web").status == 0


def assert_silent(edges: dict[str, bytes], secrets: Secrets) -> None:
    assert {name: found for name, data in edges.items() if (found := leaks(data, secrets.values))} == {}


def test_no_secret_crosses_any_edge(recorded: RecordedHouse, secrets: Secrets) -> None:
    home = recorded

    def searched() -> None:
        edges = home.edges()
        assert_silent(edges, secrets)
        (log,) = [data for name, data in edges.items() if name.endswith("/agent.log")]
        assert b"password succeeded" in re.sub(rb" [0-9.]+ s ", b" ", log)

    whole_run(home, secrets, searched)
    edges = home.edges()
    assert_silent(edges, secrets)
    # Each recorder sees what travels in the clear.
    assert b'"name":"sealed"' in edges["xenstore"]
    assert b'{"name":"version"' in edges["xenstore"]
    assert sum("exchange" in arguments[1] for arguments, _ in home.plugin_calls) >= 30
    bus = [json.loads(line) for line in edges["bus"].splitlines()]
    methods = {told[2]["method"] for what, told in bus if what == "message"}
    assert {"build_and_run_instance", "send_sealed", "terminate_instance"} <= methods
    assert {"set_admin_password", "inject_file"}.isdisjoint(methods)
    assert sum(what == "answer" for what, _ in bus) == sum(what == "message" for what, _ in bus)
    assert b"generate_admin_password" in edges["xenward.sqlite"]
    assert b"set_admin_password" in edges["standard error"]
    assert any(name.endswith("simulator.log") for name in edges)


@pytest.mark.services
def test_no_secret_crosses_the_bus_between_processes(
    recorded: RecordedHouse, secrets: Secrets, directory: Path
) -> None:
    home, proxy = recorded, RecordingProxy(5672)
    with empty_database("postgresql", directory) as database:
        over_the_bus(home, database, "threading")
        home.configure(default={"transport_url": f"rabbit://guest:guest@127.0.0.1:{proxy.port}/"})
        with service(home):
            whole_run(home, secrets, lambda: assert_silent(home.edges(), secrets))
    seen = proxy.seen()
    proxy.close()
    assert_silent({**home.edges(), "bus": seen}, secrets)
    for method in (b"build_and_run_instance", b"send_sealed", b"terminate_instance"):
        assert method in seen
    # Replies are seen as well: a reply is a message with this member.
    assert seen.count(b"_msg_id") > 20
    assert b"box" in seen and b"set_admin_password" in seen


def test_the_search_finds_each_spelling() -> None:
    for before in ("", "a", "ab", "abc"):
        text = (before + FIRST + "\nrest").encode()
        once = base64.b64encode(text)
        for data in (text, once, base64.b64encode(once), base64.b64encode(b"x" + once), text.hex().encode().upper()):
            assert leaks(data, [FIRST.encode()]), (before, data)
    assert leaks(b"nothing here", [FIRST.encode()]) == []
    assert all(len(needle) >= len(FIRST) for needle in needles(FIRST.encode()))


# What was recorded, played again

REFUSALS = {
    ("refused", "unknown_key"),
    ("refused", "bad_box"),
    ("refused", "expired"),
    ("unknown", "replayed"),
    ("unknown", "request_id_reused"),
}

_REQUEST = re.compile(r"/local/domain/[0-9]+/data/host/([0-9a-f-]{36})")
_FRAME = re.compile(r"/local/domain/[0-9]+/data/xenward/frames/([0-9a-f-]{36})/([0-9]+)")


class Tape:
    """The sealed requests that dom0 wrote, with their frames."""

    def __init__(self, written: list[tuple[str, bytes]]) -> None:
        self.requests: dict[str, bytes] = {}
        self.frames: dict[str, dict[str, bytes]] = {}
        for path, value in written:
            request, frame = _REQUEST.fullmatch(path), _FRAME.fullmatch(path)
            if request and json.loads(value)["name"] == "sealed":
                self.requests[request[1]] = value
            elif frame:
                self.frames.setdefault(frame[1], {})[frame[2]] = value


class Player:
    """Plays a tape into a guest, as dom0's superuser could."""

    def __init__(self, store: Client, domid: str, guest: Path) -> None:
        self._store = store
        self._domain = f"/local/domain/{domid}"
        self._guest = guest
        store.watch(f"{self._domain}/data", "data")

    def await_advert(self, other_than: bytes) -> None:
        """Wait for an agent that tells something else."""
        self._wait(lambda: self._read(ADVERT) not in (None, other_than))

    def advert(self) -> bytes:
        return self._read(ADVERT) or b""

    def play(self, tape: Tape, rename: bool) -> set[tuple[str, str]]:
        """Write all requests again, in a random order; each is answered once, and nothing in the guest changes."""
        before = self._disk()
        names = {old: str(uuid.uuid4()) if rename else old for old in tape.requests}
        for old in random.sample(list(names), len(names)):
            for index, frame in tape.frames.get(old, {}).items():
                self._write(f"data/xenward/frames/{names[old]}/{index}", frame)
            self._write(f"data/host/{names[old]}", tape.requests[old])
        # The claim is the last thing that the agent clears away.
        self._wait(lambda: not self._children("data/host") and not self._children("data/xenward/claims"))
        replies = {name: json.loads(self._read(f"data/guest/{name}") or b"") for name in self._children("data/guest")}
        assert set(replies) == set(names.values())
        for name in replies:
            self._store.remove(f"{self._domain}/data/guest/{name}")
        assert self._children("data/xenward/frames") == []
        assert self._disk() == before
        assert all("signed" in reply and "box" not in reply for reply in replies.values())
        return {(reply["outcome"], reply["code"]) for reply in replies.values()}

    def _disk(self) -> dict[str, tuple[int, int, bytes]]:
        files = [path for path in self._guest.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    def _wait(self, ready: Callable[[], bool]) -> None:
        while not ready():
            assert self._store.next_event(SECONDS), "waited in vain"

    def _write(self, relative: str, value: bytes) -> None:
        self._store.write(f"{self._domain}/{relative}", value)

    def _read(self, relative: str) -> bytes | None:
        try:
            return self._store.read(f"{self._domain}/{relative}")
        except StoreError as error:
            assert error.code == "ENOENT"
            return None

    def _children(self, relative: str) -> list[str]:
        try:
            return self._store.directory(f"{self._domain}/{relative}")
        except StoreError as error:
            assert error.code == "ENOENT"
            return []


def test_what_was_recorded_has_no_effect_again(recorded: RecordedHouse, secrets: Secrets) -> None:
    home = recorded
    instance = home.create()
    (secrets.small.parent / "framed").write_bytes(MARK * 1000)
    framed = str(secrets.small.parent / "framed")
    assert home.xenward("server", "file", "put", "web", framed, "/opt/framed", "--mode", "0644").status == 0
    assert home.set_password(FIRST).status == 0
    assert home.set_password(SECOND).status == 0
    tape = Tape(home.written_by_dom0())
    assert len(tape.requests) == 4
    ((_, frames),) = tape.frames.items()
    assert len(frames) > 16

    vm, guest = home.vm(instance), home.guest(instance)
    # So that a file that is put again shows, whatever its content.
    (guest / "opt/framed").write_bytes(b"changed since")
    (guest / "opt/framed").chmod(0o600)
    with home.store() as store:
        player = Player(store, vm["domid"], guest)
        # The last key but one is honoured for a minute: a box for it opens, but not under another id.
        assert ("unknown", "request_id_reused") in player.play(tape, rename=False) <= REFUSALS
        outcomes = player.play(tape, rename=True)
        assert ("refused", "bad_box") in outcomes
        assert outcomes <= REFUSALS

        advert = player.advert()
        os.kill(home.agent_pid(instance), signal.SIGKILL)
        socket = home.simulator.xenstore_socket.with_name(f"domain-{vm['domid']}")
        command = [sys.executable, "-m", "guest_agent", "--root", str(guest), "--store", f"unix:{socket}"]
        with (home.directory / "agent-2.log").open("w") as log, subprocess.Popen(
            command, cwd=CHECKOUT, stderr=log
        ) as agent:  # fmt: skip
            player.await_advert(advert)
            for rename in (False, True):
                assert player.play(tape, rename) == {("refused", "unknown_key")}
            agent.terminate()

    assert home.xenward("server", "reboot", "web", "--hard").status == 0
    with home.store() as store:
        player = Player(store, home.vm(instance)["domid"], guest)
        player.await_advert(b"")
        for rename in (False, True):
            assert player.play(tape, rename) == {("refused", "unknown_key")}
    # And the agent still serves whoever has its key.
    assert home.opens(instance, SECOND)
    assert home.set_password(FIRST).status == 0
    assert home.opens(instance, FIRST)
