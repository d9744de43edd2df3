"""Passwords that are made in the guest, and that only whoever asked for one can read: no host on the way sees them."""

from __future__ import annotations

import base64
import random
import string
from dataclasses import dataclass
from typing import Callable

from agent_protocol import hpke
from agent_protocol.messages import MAX_PASSWORD, Password
from agent_protocol.outcomes import Refused
from agent_protocol.primitives import guarded

from ..system.accounts import check_account_name
from ..system.authorized_keys import AuthorizedKey
from .arguments import bad, from_base64, json_object, optional_text
from .table import SEALED, Context, Result, command

LENGTH = 20
"""Characters of a generated password, unless the guest's policy wants more: about 120 bits."""

CLASSES = (string.ascii_lowercase, string.ascii_uppercase, string.digits, "!#%+,-./:=?@_~")
"""What a password has something of each of. The last holds nothing that a shell or a keyboard's dead keys spoil."""

MIN_RSA_BITS = 2048
"""Bits of the smallest RSA key that something is encrypted to: NIST SP 800-131A's limit."""

MAX_RSA_BITS = 16384
"""Bits of the largest: what OpenSSL and OpenSSH take."""

HPKE_INFO = b"xenward 2 password\0"
"""What a box with a password is bound to, together with the user's name behind it."""


@dataclass(frozen=True)
class Generation:
    """An account that is to get a new password. user: None for the administrator. encrypt: (user, password) → bytes."""

    user: str | None
    encrypt: Callable[[str, bytes], bytes]


def _parse(untrusted_value: str) -> Generation:
    members = json_object(untrusted_value, [], ["user", "hpke", "ssh_rsa", "padding"])
    user, public, line = (optional_text(members, name) for name in ("user", "hpke", "ssh_rsa"))
    if (public is None) is (line is None):
        raise bad("exactly one of hpke and ssh_rsa must be there")
    if user is not None:
        check_account_name(user)
    if line is not None:
        return Generation(user, _to_rsa(line, optional_text(members, "padding") or "oaep"))
    if "padding" in members:
        raise bad("padding is for ssh_rsa")
    return Generation(user, _to_hpke(from_base64(public, "hpke", hpke.KEY_SIZE)))


def _to_hpke(public: bytes) -> Callable[[str, bytes], bytes]:
    return lambda user, plaintext: hpke.seal(public, HPKE_INFO + user.encode("utf-8"), plaintext)


@guarded
def _to_rsa(untrusted_line: str, untrusted_padding: str) -> Callable[[str, bytes], bytes]:
    # Only here: what reads SSH keys takes a megabyte and a half of memory, and few hosts ask with such a key.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    paddings: dict[str, padding.AsymmetricPadding] = {
        # SHA-1 in OAEP is what `openssl pkeyutl` and every library use when nothing is said; it does not weaken OAEP.
        "oaep": padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None),  # noqa: S303
        # What the get-password command of Nova's clients decrypts.
        "pkcs1v15": padding.PKCS1v15(),
    }
    chosen = paddings.get(untrusted_padding)
    if chosen is None:
        raise bad("padding is one of " + ", ".join(paddings))
    line = AuthorizedKey(untrusted_line)
    try:
        # Type and key alone: a comment may hold anything.
        key = load_ssh_public_key(" ".join(untrusted_line.split(None, 2)[:2]).encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):
        raise Refused("bad_key", "the key is not an RSA key") from None
    if line.identity[0] != "ssh-rsa" or not isinstance(key, rsa.RSAPublicKey):
        raise Refused("bad_key", "the key is not an ssh-rsa key")
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise Refused("bad_key", f"an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, this one {key.key_size}")
    return guarded(lambda _user, plaintext: key.encrypt(plaintext, chosen))


def generate(length: int = LENGTH) -> Password:
    """A random password of that many characters, with something of each of CLASSES."""
    # The system's random numbers. The module secrets is the same and more: see agent_protocol/digests.py.
    choice = random.SystemRandom().choice
    everything = "".join(CLASSES)
    while True:
        # Drawn again as a whole, or some passwords would be likelier than others.
        text = "".join(choice(everything) for _ in range(length))
        if all(set(text) & set(characters) for characters in CLASSES):
            return Password(text)


@command("password_generate", tables=SEALED, parse=_parse, max_value=32768)
def password_generate(context: Context, generation: Generation) -> Result:
    """Give an account a password that was made here; the data holds it, encrypted for whoever asked."""
    system = context.system
    user = system.administrator if generation.user is None else generation.user
    password = generate(min(MAX_PASSWORD, max(LENGTH, system.minimum_password_length())))
    # Encrypted first: a key that cannot be sealed to changes nothing, and no password is set that cannot be told.
    ciphertext = generation.encrypt(user, password.value.encode("ascii"))
    system.set_password(user, password)
    return Result("", {"user": user, "ciphertext": base64.b64encode(ciphertext).decode("ascii")})
