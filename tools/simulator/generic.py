"""The calls that xapi generates for every class from its datamodel: getters, setters, listings, searches.

Source: ocaml/idl/datamodel_utils.ml. `create` and `destroy` are generated there too, but each does something of its
own, so here they are written by hand in calls/ and only share `constructor_fields`. What calls/ does not serve is
refused here: honestly, with the code that xapi has for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable, NamedTuple

from . import errors
from .database import Row
from .model import Class, Field, Model, Parameter, Signature, Type
from .state import Context
from .values import coerce, database_string
from .where import Where, WhereError

Handler = Callable[..., Any]
"""A call's implementation: given a Context and the arguments, it returns the result."""


class Call(NamedTuple):
    """A call that is served."""

    signature: Signature
    handler: Handler


_STRING = Type("string")
_VOID = Type("void")


def generic_calls(model: Model) -> dict[str, Call]:
    """All generated calls of all classes, by name, and a refusal for each of the others."""
    calls = {name: Call(signature, _refuser(signature)) for name, signature in model.signatures.items()}
    for cls in model.classes.values():
        if cls.is_stored:
            calls.update((call.signature.name, call) for call in _class_calls(model, cls))
        for removed in cls.removed:
            name = f"{cls.name}.{removed}"
            calls[name] = Call(calls[name].signature, _refuse_removed)
    return calls


def _refuse_removed(context: Context, *arguments: Any) -> None:
    del context, arguments
    raise errors.ApiError("MESSAGE_REMOVED")


def _refuser(signature: Signature) -> Handler:
    if signature.is_removed:
        return _refuse_removed

    def refuse(context: Context, *arguments: Any) -> None:
        del context, arguments
        if signature.is_internal:
            raise errors.internal_error(
                f'Internal API "{signature.name}" call attempted with non-pool (external) session'
            )
        raise errors.not_implemented(signature.name)

    return refuse


def constructor_fields(model: Model, cls: str, untrusted_record: dict[str, Any]) -> dict[str, Any]:
    """The fields that a record given to `create` sets, checked.

    Unknown and read-only members are ignored, missing ones have their defaults. ApiError INTERNAL_ERROR when one
    without a default is missing, and what values.coerce raises.
    """
    fields: dict[str, Any] = {}
    for field in model.classes[cls].fields.values():
        if not field.constructor:
            continue
        if field.name in untrusted_record:
            fields[field.name] = coerce(model, field.type, untrusted_record[field.name])
        elif not field.has_default:
            raise errors.failure(f"Field {field.name} not present in rpc")
    return fields


def _class_calls(model: Model, cls: Class) -> Iterator[Call]:
    name = cls.name
    self_parameter = Parameter("self", Type("ref", name))
    ref, record = Type("ref", name), model.record_type(name)

    def make(call: str, parameters: tuple[Parameter, ...], result: Type, handler: Handler) -> Call:
        return Call(Signature(f"{name}.{call}", parameters, result), handler)

    yield make("get_record", (self_parameter,), record, lambda context, self: context.database.snapshot(name, self))
    yield make(
        "get_by_uuid",
        (Parameter("uuid", _STRING),),
        ref,
        lambda context, uuid: context.database.by_uuid(name, uuid),
    )
    if "get_by_name_label" in cls.implicit:
        yield make(
            "get_by_name_label",
            (Parameter("label", _STRING),),
            Type("set", item=ref),
            lambda context, label: context.database.find(name, "name_label", label),
        )
    if "get_all" in cls.implicit:
        refs, records = Type("set", item=ref), Type("map", key=ref, item=record)
        expression = (Parameter("expr", _STRING),)
        yield make("get_all", (), refs, lambda context: context.database.refs(name))
        yield make("get_all_records", (), records, lambda context: context.database.snapshots(name))
        yield make("get_all_where", expression, refs, lambda context, expr: list(_select(context, cls, expr)))
        yield make("get_all_records_where", expression, records, lambda context, expr: _select(context, cls, expr))
    for field in cls.fields.values():
        yield from _field_calls(cls, field, self_parameter)


def _field_calls(cls: Class, field: Field, self_parameter: Parameter) -> Iterator[Call]:
    def make(call: str, arguments: tuple[Parameter, ...], result: Type, handler: Handler) -> Call:
        return Call(Signature(f"{cls.name}.{call}", (self_parameter, *arguments), result), handler)

    yield make(
        f"get_{field.name}", (), field.type, lambda context, self: context.database.get(cls.name, self, field.name)
    )
    if not field.writable:
        return
    yield make(f"set_{field.name}", (Parameter("value", field.type),), _VOID, setter(cls.name, field.name))
    item = field.type.item
    if field.type.kind == "map":
        assert field.type.key is not None
        assert item is not None
        key = Parameter("key", field.type.key)
        pair = (key, Parameter("value", item))
        yield make(f"add_to_{field.name}", pair, _VOID, map_adder(cls.name, field.name))
        yield make(f"remove_from_{field.name}", (key,), _VOID, map_remover(cls.name, field.name))
    elif field.type.kind == "set":
        assert item is not None
        value = (Parameter("value", item),)
        yield make(f"add_{field.name}", value, _VOID, set_adder(cls.name, field.name))
        yield make(f"remove_{field.name}", value, _VOID, set_remover(cls.name, field.name))


def setter(cls: str, field: str) -> Handler:
    """`set_<field>`."""
    return lambda context, self, value: context.database.set(cls, self, **{field: value})


def map_adder(cls: str, field: str) -> Handler:
    """`add_to_<field>`."""
    return lambda context, self, key, value: context.database.add_to_map(cls, self, field, key, value)


def map_remover(cls: str, field: str) -> Handler:
    """`remove_from_<field>`."""
    return lambda context, self, key: context.database.remove_from_map(cls, self, field, key)


def set_adder(cls: str, field: str) -> Handler:
    """`add_<field>`."""
    return lambda context, self, value: context.database.add_to_set(cls, self, field, value)


def set_remover(cls: str, field: str) -> Handler:
    """`remove_<field>`."""
    return lambda context, self, value: context.database.remove_from_set(cls, self, field, value)


def _select(context: Context, cls: Class, expression: str) -> dict[str, Row]:
    try:
        where = Where(expression)
    except WhereError as error:
        raise errors.ApiError("INVALID_VALUE", expression, str(error)) from None
    for column in where.columns:
        if column not in cls.columns:
            raise errors.internal_error(f'Db_exn.DBCache_NotFound("missing field", "{column}", "")')
    columns = cls.columns
    return {
        ref: record
        for ref, record in context.database.snapshots(cls.name).items()
        if where.matches(lambda column, record=record: database_string(record[columns[column].name]))  # type: ignore[misc]
    }
