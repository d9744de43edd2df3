"""cryptography's primitives. Everything of ours takes them from here, so that a broken cryptography is an answer.

A package that lost its compiled part, or a system that forbids an algorithm, must not end the agent of a guest that
nobody else can reach, nor leave a request without an answer. So this module can be imported in any case: where
cryptography cannot, the first use of anything from it ends in Failed, `cryptography_unavailable`. The same becomes of
whatever a primitive raises in the middle, in the functions that are `guarded`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, NoReturn, TypeVar, cast

from .outcomes import Failed, Unsuccessful

UNAVAILABLE = "cryptography_unavailable"
"""The code of what fails for want of cryptography."""

__all__ = [
    "AESGCM",
    "HMAC",
    "PKCS7",
    "SHA256",
    "UNAVAILABLE",
    "Cipher",
    "Ed25519PrivateKey",
    "Ed25519PublicKey",
    "HKDFExpand",
    "Hash",
    "InvalidSignature",
    "InvalidTag",
    "X25519PrivateKey",
    "X25519PublicKey",
    "algorithms",
    "check_loaded",
    "guarded",
    "missing",
    "modes",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Missing:
    """Stands in for all that cryptography brings: whatever is done with it says that it is not there."""

    def __getattr__(self, name: str) -> NoReturn:
        raise _unavailable(_reason or name)

    def __call__(self, *arguments: object, **options: object) -> NoReturn:
        del arguments, options
        raise _unavailable(_reason or "")


class _NeverRaised(Exception):
    """Stands in for cryptography's exceptions."""


_reason: str | None = None

try:
    from cryptography.exceptions import InvalidSignature, InvalidTag
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256, Hash
    from cryptography.hazmat.primitives.hmac import HMAC
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
    from cryptography.hazmat.primitives.padding import PKCS7
except KeyboardInterrupt:
    raise
except BaseException as error:
    # Really everything: a panic of its compiled part is no Exception, nor is an attempt to end the process.
    _reason = f"{type(error).__name__}: {error}"[:300].replace("\n", " ")

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Asked by whoever imports a name that the imports above did not come to.
        if _reason is None or name not in __all__:
            raise AttributeError(name)
        return _NeverRaised if name.startswith("Invalid") else _Missing()


def missing() -> str | None:
    """Why cryptography could not be loaded, one line; None when it was."""
    return _reason


def check_loaded() -> None:
    """Failed (`cryptography_unavailable`) when cryptography could not be loaded."""
    if _reason is not None:
        raise _unavailable(_reason)


def guarded(function: _Function) -> _Function:
    """Decorates what uses primitives: whatever they raise that the function itself does not expect becomes Failed.

    The function handles their ValueError, InvalidTag and InvalidSignature itself, where data can be the reason.
    """

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except (Unsuccessful, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            # Not its text, which may tell of a secret.
            raise _unavailable(f"{type(error).__name__} in {function.__name__}") from None

    return cast(_Function, call)


def _unavailable(reason: str) -> Failed:
    return Failed(UNAVAILABLE, f"cryptography does not work here ({reason})")
