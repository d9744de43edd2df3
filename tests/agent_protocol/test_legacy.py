"""The old password exchange: its vectors, both halves, the openssl program as a peer, and hostile numbers."""

from __future__ import annotations

import base64
import functools
import os
import secrets
import subprocess
import traceback
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_protocol.legacy import GENERATOR, PRIME, AgentExchange, HostExchange, parse_public
from agent_protocol.outcomes import Refused

HOST_PRIVATE = 123456789012345678901234
HOST_PUBLIC = "91223846617219412420445662667177"
AGENT_PRIVATE = 98765432109876543210987654321
AGENT_PUBLIC = "114342722885734697350371290720355"
SHARED = "82358771961116839129106588529291"

VECTORS = [
    ("Passw0rd!", "KDlA+NyL7vq+mSdQ9bncZw==", "+9HTaQLPSiaNghXSoCte5g=="),
    (
        "correct horse battery staple",
        "P4YN+JlSqxcHrEQnCT6qEv5Ly/V3FLyJ0rgT4rrjsDQ=",
        "sl1pUr9H1+ffFULFWbDiTsslEV7a1eyZXVLhBrVP/UM=",
    ),
    (
        "пароль-ß-密",
        "652J0lcxPU8X4l5EQKaIpVpiuCRAecKfwzrHZWS2R5s=",
        "XxLfOiJ919LCk9n7IbrlbON0LT2+5dgTjPCQNBGhjrI=",
    ),
]
"""Made with the openssl program: password, ciphertext with the MD5 derivation, with the SHA-256 derivation."""

DEGENERATE = [
    "0",
    "1",
    str(PRIME - 1),
    str(PRIME),
    str(PRIME + 1),
    "-1",
    "-5",
    "9" * 40,
    "9" * 5000,
    "٣٤٥٦",
    "\uff17\uff17\uff17",
]
NO_NUMBERS = ["", " ", "abc", "0x10", "1e5", "5.0", "1_000", "+5", "5 5", "5\0", "\ud800", "5" * 41]

# What chpasswd and Windows can be given; the agent cuts no more than the newline that the host added.
PASSWORDS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=64)


def openssl(decrypt: bool, shared: str, digest: str, data: bytes) -> bytes:
    """The program, called with Nova's options; its base64 is on one line."""
    command = ["openssl", "aes-128-cbc", "-A", "-a", "-pass", f"pass:{shared}", "-nosalt", "-md", digest]
    command += ["-d"] if decrypt else []
    done = subprocess.run(command, input=data, capture_output=True, env={"PATH": os.environ["PATH"]}, check=True)
    return done.stdout


@pytest.fixture
def agent() -> AgentExchange:
    """An agent that has agreed on the vectors' key."""
    exchange = AgentExchange(AGENT_PRIVATE)
    assert exchange.accept(HOST_PUBLIC) == AGENT_PUBLIC
    return exchange


def refused(act: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        act()
    return caught.value


class TestVectors:
    @pytest.mark.parametrize(("password", "md5", "sha256"), VECTORS)
    def test_the_agent_opens_both_derivations(self, password: str, md5: str, sha256: str) -> None:
        for ciphertext in (md5, sha256):
            agent = AgentExchange(AGENT_PRIVATE)
            agent.accept(HOST_PUBLIC)
            assert agent.open(ciphertext) == password

    @pytest.mark.parametrize(("password", "md5", "sha256"), VECTORS)
    def test_the_host_seals_with_md5(self, password: str, md5: str, sha256: str) -> None:
        host = HostExchange(HOST_PRIVATE)
        assert host.public == HOST_PUBLIC
        assert host.seal(password, AGENT_PUBLIC) == md5

    def test_numbers_may_have_a_line_break_of_windows(self) -> None:
        assert HostExchange(HOST_PRIVATE).seal("Passw0rd!", AGENT_PUBLIC + "\r\n") == VECTORS[0][1]
        assert parse_public(f" {HOST_PUBLIC}\n") == int(HOST_PUBLIC)

    def test_base64_may_be_in_lines(self, agent: AgentExchange) -> None:
        ciphertext = VECTORS[1][1]
        assert agent.open(ciphertext[:20] + "\n" + ciphertext[20:] + "\r\n") == VECTORS[1][0]


class TestBothHalves:
    @settings(deadline=None)
    @given(PASSWORDS)
    def test_what_one_seals_the_other_opens(self, password: str) -> None:
        host, agent = HostExchange(), AgentExchange()
        assert agent.open(host.seal(password, agent.accept(host.public))) == password

    def test_every_exchange_has_numbers_of_its_own(self) -> None:
        agent = AgentExchange()
        assert len({HostExchange().public for _ in range(20)}) == 20
        assert len({agent.accept(HOST_PUBLIC) for _ in range(20)}) == 20

    def test_a_second_keyinit_replaces_the_first(self) -> None:
        first, second, agent = HostExchange(), HostExchange(), AgentExchange()
        stale = first.seal("secret", agent.accept(first.public))
        fresh_public = agent.accept(second.public)
        assert refused(lambda: agent.open(stale)).code == "undecipherable"
        fresh_public = agent.accept(second.public)
        assert agent.open(second.seal("secret", fresh_public)) == "secret"


class TestOpenssl:
    @pytest.mark.parametrize("digest", ["md5", "sha256"])
    @pytest.mark.parametrize("password", ["Passw0rd!", "пароль-ß-密", "x" * 15, "x" * 16, "x" * 200, "'\"$(id) \\n"])
    def test_the_agent_opens_what_a_nova_host_sends(self, digest: str, password: str) -> None:
        private = secrets.randbits(80)
        agent = AgentExchange()
        agent_public = int(agent.accept(str(pow(GENERATOR, private, PRIME))))
        shared = str(pow(agent_public, private, PRIME))
        ciphertext = openssl(False, shared, digest, f"{password}\n".encode())
        assert agent.open(ciphertext.decode("ascii")) == password

    def test_an_old_agent_opens_what_the_host_seals(self) -> None:
        private = secrets.randbits(600)
        host = HostExchange()
        ciphertext = host.seal("пароль-ß", str(pow(GENERATOR, private, PRIME)))
        shared = str(pow(int(host.public), private, PRIME))
        assert openssl(True, shared, "md5", ciphertext.encode()) == "пароль-ß\n".encode()


class TestNumbers:
    @pytest.mark.parametrize("number", DEGENERATE + NO_NUMBERS)
    def test_what_no_key_can_be_agreed_with(self, number: str, agent: AgentExchange) -> None:
        for act in (
            lambda: parse_public(number),
            lambda: agent.accept(number),
            lambda: HostExchange().seal("hunter2", number),
        ):
            error = refused(act)
            assert error.code == "bad_public_number"
            assert "hunter2" not in str(error)
        # A refused number takes the previous key away as well.
        assert refused(lambda: agent.open(VECTORS[0][1])).code == "no_key"

    @pytest.mark.parametrize("number", [2, 5, PRIME - 2])
    def test_the_edges_of_the_group(self, number: int) -> None:
        assert parse_public(str(number)) == number

    @given(st.text(max_size=50))
    def test_any_text_is_a_number_or_refused(self, text: str) -> None:
        try:
            number = parse_public(text)
        except Refused:
            return
        assert 1 < number < PRIME - 1


class TestKeyIsForgotten:
    def test_before_any_exchange_there_is_none(self) -> None:
        assert refused(lambda: AgentExchange().open(VECTORS[0][1])).code == "no_key"

    def test_after_success(self, agent: AgentExchange) -> None:
        agent.open(VECTORS[0][1])
        assert refused(lambda: agent.open(VECTORS[0][1])).code == "no_key"

    @pytest.mark.parametrize(
        "ciphertext",
        ["", "=", "not base64!", "äöü", "\ud800", "AAAA", "A" * 2001, "A" * 64, base64.b64encode(bytes(17))],
    )
    def test_after_failure(self, agent: AgentExchange, ciphertext: str | bytes) -> None:
        text = ciphertext.decode() if isinstance(ciphertext, bytes) else ciphertext
        assert refused(lambda: agent.open(text)).code == "undecipherable"
        assert refused(lambda: agent.open(VECTORS[0][1])).code == "no_key"

    def test_when_told(self, agent: AgentExchange) -> None:
        agent.forget()
        assert refused(lambda: agent.open(VECTORS[0][1])).code == "no_key"


class TestSecrets:
    def test_a_wrong_key_never_yields_a_password(self, agent: AgentExchange) -> None:
        # With the padding alone to go by, 4000 tries in two derivations would yield about 31.
        for size in (16, 32, 48, 64) * 1000:
            ciphertext = base64.b64encode(secrets.token_bytes(size)).decode()
            agent.accept(HOST_PUBLIC)
            assert refused(functools.partial(agent.open, ciphertext)).code == "undecipherable"

    @pytest.mark.parametrize("plain", [b"\n", b"", b"a\0\n", b"\xff\xfe\n", b"two\nlines\n", b"\x1b[0m\n"])
    def test_a_plaintext_that_is_no_password_is_refused(self, agent: AgentExchange, plain: bytes) -> None:
        ciphertext = openssl(False, SHARED, "md5", plain).decode()
        assert refused(lambda: agent.open(ciphertext)).code == "undecipherable"

    def test_nothing_secret_is_shown(self, agent: AgentExchange) -> None:
        host = HostExchange(HOST_PRIVATE)
        host.seal("hunter2", AGENT_PUBLIC)
        shown = f"{host!r} {host} {agent!r} {agent}"
        for act in (
            lambda: host.seal("hunter2", "0"),
            lambda: agent.open(openssl(False, SHARED, "md5", b"hunter2\0\n").decode()),
        ):
            error = refused(act)
            assert error.__cause__ is None
            shown += "".join(traceback.format_exception_only(type(error), error)) + repr(error)
        for secret in (SHARED, str(HOST_PRIVATE), str(AGENT_PRIVATE), "hunter2"):
            assert secret not in shown
