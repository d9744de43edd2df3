"""XenAPI errors: a code and parameters, all strings, in exactly the order in which xapi gives them.

Source of the layouts: ocaml/xapi-consts/api_errors.ml and the places in xapi that raise them.
"""

from __future__ import annotations


class ApiError(Exception):
    """Raised by a call that fails; its description goes back to the caller as it is."""

    def __init__(self, code: str, *parameters: str) -> None:
        super().__init__(code, *parameters)
        self.code = code
        self.description = [code, *parameters]


def session_invalid(ref: str) -> ApiError:
    """The session is unknown, or its owner logged out."""
    return ApiError("SESSION_INVALID", ref)


def handle_invalid(cls: str, ref: str) -> ApiError:
    """The reference is unknown, or belongs to an object of another class."""
    return ApiError("HANDLE_INVALID", cls, ref)


def uuid_invalid(cls: str, uuid: str) -> ApiError:
    """No object of that class has the uuid."""
    return ApiError("UUID_INVALID", cls, uuid)


def method_unknown(name: str) -> ApiError:
    """There is no such call."""
    return ApiError("MESSAGE_METHOD_UNKNOWN", name)


def not_implemented(name: str) -> ApiError:
    """The call exists, but nobody does it here. xapi says so of a few of its own calls, such as console.create."""
    return ApiError("NOT_IMPLEMENTED", name)


def parameter_count_mismatch(name: str, expected: int, received: int) -> ApiError:
    """Too few parameters, or too many for a call without optional ones. Neither number counts the session."""
    return ApiError("MESSAGE_PARAMETER_COUNT_MISMATCH", name, str(expected), str(received))


def map_duplicate_key(cls: str, field: str, ref: str, key: str) -> ApiError:
    """`add_to_…` of a key that the map holds already."""
    return ApiError("MAP_DUPLICATE_KEY", cls, field, ref, key)


def invalid_value(what: str, value: str, *detail: str) -> ApiError:
    """A well-typed value that means nothing: an unknown enum value, a malformed date or expression."""
    return ApiError("INVALID_VALUE", what, value, *detail)


def internal_error(exception: str) -> ApiError:
    """What xapi answers when one of its own exceptions escapes; the text is OCaml's form of the exception."""
    return ApiError("INTERNAL_ERROR", exception)


def failure(text: str) -> ApiError:
    """INTERNAL_ERROR for OCaml's `Failure text`, as wrongly typed or missing values cause it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return internal_error(f'Failure("{escaped}")')


def bad_power_state(vm: str, expected: tuple[str, ...], actual: str) -> ApiError:
    """The operation is not allowed in the VM's power state. Lower case, unlike the field."""
    return ApiError("VM_BAD_POWER_STATE", vm, ", ".join(state.lower() for state in expected), actual.lower())


def operation_not_allowed(reason: str) -> ApiError:
    """A rule of xapi's forbids it, for the reason given."""
    return ApiError("OPERATION_NOT_ALLOWED", reason)
