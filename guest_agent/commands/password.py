"""The administrator's password, by the key exchange of the existing clouds."""

from __future__ import annotations

from agent_protocol.messages import Password

from .table import Context, command

# Both take their value as it is: the exchange checks it itself, and must see even a bad one to forget its key.


@command("keyinit", parse=str, returncode="D0")
def keyinit(context: Context, untrusted_public: str) -> str:
    """Agree on a key for one password: takes the host's public number in decimal, returns ours."""
    return context.exchange.accept(untrusted_public)


@command("password", parse=str, secret=True)
def password(context: Context, untrusted_ciphertext: str) -> str:
    """Set the administrator's password to what was encrypted with the key that keyinit agreed on."""
    new_password = Password(context.exchange.open(untrusted_ciphertext))
    context.system.set_password(context.system.administrator, new_password)
    return ""
