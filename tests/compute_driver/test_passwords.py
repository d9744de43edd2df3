from __future__ import annotations

import math

from agent_protocol.messages import Password
from compute_driver import passwords

CLASSES = (str.islower, str.isupper, str.isdigit, lambda character: not character.isalnum())


def test_generated_passwords_hold_every_class_and_differ() -> None:
    made = [passwords.generate() for _ in range(500)]
    for password in made:
        assert isinstance(password, Password)
        assert len(password.value) == 20
        assert password.value.isascii()
        for is_of_class in CLASSES:
            assert any(map(is_of_class, password.value)), password.value
        # Nothing that shells, URLs or readers trip over.
        assert not set(password.value) & set("lIO01 '\"`$\\/&#?!*|<>(){}[];,")
    assert len({password.value for password in made}) == len(made)


def test_the_alphabet_carries_at_least_120_bits() -> None:
    seen = {character for _ in range(500) for character in passwords.generate().value}
    assert 20 * math.log2(len(seen)) > 120


def test_a_generated_password_does_not_show() -> None:
    password = passwords.generate()
    assert password.value not in repr(password) + str(password)
