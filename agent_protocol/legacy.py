"""The password exchange of the existing clouds, contained in this file: 107-bit Diffie-Hellman and AES-128-CBC.

It protects nothing against whoever sees both public numbers (the group falls to Pohlig-Hellman within
milliseconds) and nothing at all against change: it is spoken only because existing hosts and agents speak it.
Both halves are here: HostExchange for the host, AgentExchange for the guest.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import Callable

from .digests import sha256
from .messages import has_control_characters
from .outcomes import Refused
from .primitives import PKCS7, Cipher, algorithms, check_loaded, guarded, modes

PRIME = 162259276829213363391578010288127
"""2**107 - 1, the modulus that every existing agent has built in."""

GENERATOR = 5

_PRIVATE_BITS = 600
"""Length of our private numbers; the existing agents' length. The group's order caps what it is worth."""

_MAX_CIPHERTEXT = 2000
"""Characters of base64 that can arrive: a XenStore value holds no more."""

_BLOCK = 16
_NUMBER = re.compile(r"[0-9]{1,40}\Z", re.ASCII)


def _derive(digest: Callable[[bytes], bytes], shared: int) -> tuple[bytes, bytes]:
    """Key and IV as `openssl enc -nosalt` derives them (EVP_BytesToKey, one round) from the decimal shared number."""
    secret = str(shared).encode("ascii")
    material = block = b""
    while len(material) < 32:
        block = digest(block + secret)
        material += block
    return material[:16], material[16:32]


def _md5(data: bytes) -> bytes:
    # Only here, where the rare guest needs it: see digests.py. That MD5 protects nothing must be said where OpenSSL has
    # it forbidden.
    import hashlib

    return hashlib.md5(data, usedforsecurity=False).digest()


def parse_public(untrusted_number: str) -> int:
    """The other side's public number from its decimal text.

    Refused (`bad_public_number`) when it is no number within the group, or a degenerate one: 0, 1 and p - 1 force
    a shared number that everybody knows.
    """
    text = untrusted_number.strip()
    number = int(text) if _NUMBER.match(text) else 0
    if not 1 < number < PRIME - 1:
        raise Refused("bad_public_number", "the public number is not one that a key can be agreed with")
    return number


class _Exchange:
    """What both halves share: a private number, its public one, and the key agreed on."""

    def __init__(self, private: int | None = None) -> None:
        self._private = private

    def _fresh_private(self) -> int:
        # Drawn again until the public number is not one that a careful peer refuses.
        while True:
            private = self._private or int.from_bytes(os.urandom(_PRIVATE_BITS // 8), "big") | 1
            if 1 < pow(GENERATOR, private, PRIME) < PRIME - 1:
                return private


class HostExchange(_Exchange):
    """The host's half, for one password: send `public`, then seal the password for the agent's answer.

    private: a fixed private number, for test vectors; a fresh one otherwise.
    """

    def __init__(self, private: int | None = None) -> None:
        super().__init__(private)
        self._private = self._fresh_private()

    @property
    def public(self) -> str:
        """Our public number as decimal text: old Windows agents crash on a JSON number."""
        return str(pow(GENERATOR, self._private or 0, PRIME))

    @guarded
    def seal(self, password: str, untrusted_public: str) -> str:
        """The password for the agent with that public number, encrypted, in base64.

        A newline is added, which existing agents need. The key is derived with MD5, which they expect. Refused
        when the public number is degenerate.
        """
        shared = pow(parse_public(untrusted_public), self._private or 0, PRIME)
        key, iv = _derive(_md5, shared)
        padder = PKCS7(_BLOCK * 8).padder()
        padded = padder.update(password.encode("utf-8") + b"\n") + padder.finalize()
        encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
        return base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode("ascii")


class AgentExchange(_Exchange):
    """The agent's half. One key opens one password: it is forgotten whether that went well or not.

    private: a fixed private number, for test vectors; a fresh one for each exchange otherwise.
    """

    def __init__(self, private: int | None = None) -> None:
        super().__init__(private)
        self._shared: int | None = None

    def accept(self, untrusted_public: str) -> str:
        """Take the host's public number; returns ours as decimal text. Refused when it is degenerate.

        Failed (`cryptography_unavailable`) where no password could be opened afterwards.
        """
        self.forget()
        check_loaded()
        host_public = parse_public(untrusted_public)
        private = self._fresh_private()
        self._shared = pow(host_public, private, PRIME)
        return str(pow(GENERATOR, private, PRIME))

    def open(self, untrusted_ciphertext: str) -> str:
        """The password in a base64 ciphertext, without its final newline.

        Hosts derive the key with MD5, or, through an OpenSSL of 1.1 or later, with SHA-256: both are tried, and
        a result counts only if its padding is whole and it is text without control characters. Refused with
        `no_key` when no exchange preceded, `undecipherable` when neither derivation gives such a text; Failed
        (`cryptography_unavailable`) where nothing can be decrypted.
        """
        shared, self._shared = self._shared, None
        check_loaded()
        if shared is None:
            raise Refused("no_key", "no key was agreed on before the password")
        if len(untrusted_ciphertext) > _MAX_CIPHERTEXT:
            raise Refused("undecipherable", f"the ciphertext exceeds {_MAX_CIPHERTEXT} characters")
        try:
            ciphertext = base64.b64decode("".join(untrusted_ciphertext.split()), validate=True)
        except (binascii.Error, ValueError):
            raise Refused("undecipherable", "the ciphertext is not base64") from None
        for digest in (_md5, sha256):
            password = _decrypt(ciphertext, *_derive(digest, shared))
            if password is not None:
                return password
        raise Refused("undecipherable", "the password was not encrypted with the key that was agreed on")

    def forget(self) -> None:
        """Drop the key that was agreed on, if any."""
        self._shared = None


@guarded
def _decrypt(ciphertext: bytes, key: bytes, iv: bytes) -> str | None:
    if not ciphertext or len(ciphertext) % _BLOCK:
        return None
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    unpadder = PKCS7(_BLOCK * 8).unpadder()
    try:
        plain = unpadder.update(decryptor.update(ciphertext) + decryptor.finalize()) + unpadder.finalize()
        text = plain.decode("utf-8")
    except ValueError:
        return None
    text = text.removesuffix("\n")
    # A wrong key gives random bytes; one in 256 has a whole padding, and of those about one in a million is
    # UTF-8 without control characters.
    return text if text and not has_control_characters(text) else None
