"""Keys of Curve25519 as their 32 bytes, by every cryptography since 3.4: public_bytes_raw and its like came with 40."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

from .primitives import guarded

if TYPE_CHECKING:
    from .primitives import Ed25519PrivateKey, Ed25519PublicKey, X25519PrivateKey, X25519PublicKey

    PublicKey = Union[Ed25519PublicKey, X25519PublicKey]
    PrivateKey = Union[Ed25519PrivateKey, X25519PrivateKey]


@guarded
def raw_public(key: PublicKey) -> bytes:
    """The public key's 32 bytes."""
    if hasattr(key, "public_bytes_raw"):
        return key.public_bytes_raw()
    # Only here: loading it takes a megabyte, which nobody needs where the above is there.
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


@guarded
def raw_private(key: PrivateKey) -> bytes:
    """The private key's 32 bytes."""
    if hasattr(key, "private_bytes_raw"):
        return key.private_bytes_raw()
    from cryptography.hazmat.primitives import serialization

    raw, plain = serialization.PrivateFormat.Raw, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.Raw, raw, plain)
