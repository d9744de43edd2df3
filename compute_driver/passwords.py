"""Passwords for administrators, made when the caller brings none."""

from __future__ import annotations

import secrets

from agent_protocol.messages import Password

_LENGTH = 20
"""Characters: about 124 bits with the alphabet below."""

_CLASSES = ("abcdefghijkmnopqrstuvwxyz", "ABCDEFGHJKLMNPQRSTUVWXYZ", "23456789", "-_.:+=@%^~")
"""Without characters that look alike, and without those that shells and URLs trip over most."""


def generate() -> Password:
    """A random password with a character of each class, which is what Windows and common PAM policies ask for."""
    alphabet = "".join(_CLASSES)
    while True:
        value = "".join(secrets.choice(alphabet) for _ in range(_LENGTH))
        if all(set(value) & set(characters) for characters in _CLASSES):
            return Password(value)
