"""How much of XenAPI the simulator serves, counted from the datamodel and the table of calls.

    python -m tools.simulator.coverage

writes docs/simulator-coverage.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import model
from .calls import HANDLERS
from .model import Class, Model, Type, generated_names

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "simulator-coverage.md"

CHECKS_ONLY = frozenset(
    (
        "PIF.introduce",
        "VGPU.create",
        "VM.call_plugin",
        "host.call_extension",
        "pool.join",
        "pool.join_force",
    )
)
"""Calls that make xapi's checks and always end in an error here: what they do has no subject in a simulated pool. They
do not count as served."""

PREPARED = (
    "PBD",
    "PIF",
    "PIF_metrics",
    "SR",
    "VM",
    "VM_metrics",
    "console",
    "host",
    "host_cpu",
    "host_metrics",
    "network",
    "pool",
)
"""Classes of which a fresh pool has objects."""


@dataclass(frozen=True)
class Count:
    """What is served of a class.

    fields, calls: how many of them there are; what xapi itself removed, or keeps for its own hosts, is not counted.
    unread: the fields that nobody can read. missing: the calls that are not served, with their whole names.
    has_objects: whether there can be any in a simulated pool.
    """

    name: str
    fields: int
    calls: int
    unread: tuple[str, ...]
    missing: tuple[str, ...]
    has_objects: bool


def count(datamodel: Model) -> list[Count]:
    """The counts of all classes, by their names without regard to case."""
    served = {name for name in HANDLERS if name not in CHECKS_ONLY}
    records = {
        cls for name in served if name in datamodel.signatures for cls in _records(datamodel.signatures[name].result)
    }
    # event.from answers what the datamodel has no type for: a batch of events.
    records |= {"event"} if "event.from" in served else set()
    made = set(PREPARED)
    for name in served:
        signature = datamodel.signatures.get(name)
        if signature is not None and signature.result.kind == "ref":
            made.add(signature.result.name)
    classes = sorted(datamodel.classes.values(), key=lambda cls: cls.name.lower())
    made |= {"VM_guest_metrics", "VLAN", "session", *(cls for cls in records if not datamodel.classes[cls].is_stored)}
    # With TLS every host has some.
    made.add("Certificate")
    return [_count(datamodel, cls, served, cls.is_stored or cls.name in records, cls.name in made) for cls in classes]


def _records(result: Type) -> set[str]:
    found = {result.name} if result.kind == "record" else set()
    for part in (result.key, result.item):
        found |= _records(part) if part is not None else set()
    return found


def _count(datamodel: Model, cls: Class, served: set[str], readable: bool, has_objects: bool) -> Count:
    generated = {f"{cls.name}.{name}" for name in generated_names(cls) - cls.removed}
    explicit = {
        name
        for name, signature in datamodel.signatures.items()
        if name.startswith(cls.name + ".") and not signature.is_removed and not signature.is_internal
    }
    fields = [name for name in cls.fields if f"get_{name}" not in cls.removed]
    return Count(
        cls.name,
        len(fields),
        len(generated | explicit),
        () if readable else tuple(fields),
        tuple(sorted(explicit - served)),
        has_objects,
    )


_INTRODUCTION = """# What the simulated XenServer serves

Written by `python -m tools.simulator.coverage`; a test fails when it is not up to date.

The datamodel that the simulator works by is xapi's own:
{source}.
Every class, field, call, error and relation of it is known here, so a client finds each name, signature and type that
it finds on a real host. This page says what is behind them. Calls that xapi removed, or that only hosts of a pool may
make, are not counted; they are answered as xapi answers them (`MESSAGE_REMOVED`, `INTERNAL_ERROR`).

A call that is not served ends in `NOT_IMPLEMENTED` and changes nothing. The calls marked with * are not counted as
served either: they make xapi's checks, with its errors, but end in an error even when all checks pass, because what
they do has no subject in a simulated pool.

Some things are simpler than on a real host: a simulated guest has Xen's drivers even without any device, uses no
processor time, and has always as much memory as it may have.

"""


def render(datamodel: Model) -> str:
    """The text of the document."""
    counts = count(datamodel)
    lines = [_INTRODUCTION.format(source=datamodel.source)]
    lines.append("| Class | Objects | Fields | served | Calls | served |\n|---|---|--:|--:|--:|--:|\n")
    for item in counts:
        lines.append(_row(item.name, "yes" if item.has_objects else "none", [item]))
    with_objects = [item for item in counts if item.has_objects]
    lines.append(_row("**with objects**", "", with_objects))
    lines.append(_row("**all**", "", counts))
    lines.append("\n## Calls that are not served\n\n")
    for item in counts:
        if item.missing:
            names = ", ".join(f"`{name.partition('.')[2]}`{'*' * (name in CHECKS_ONLY)}" for name in item.missing)
            lines.append(f"- **{item.name}**: {names}\n")
    return "".join(lines)


def _row(name: str, objects: str, counts: list[Count]) -> str:
    fields, calls = sum(item.fields for item in counts), sum(item.calls for item in counts)
    read, served = fields - sum(len(item.unread) for item in counts), calls - sum(len(item.missing) for item in counts)
    return f"| {name} | {objects} | {fields} | {_share(read, fields)} | {calls} | {_share(served, calls)} |\n"


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part // whole} %)" if whole else ""


def document() -> str:
    """The text as it should be now."""
    return render(model.load())


if __name__ == "__main__":
    DOCUMENT.write_text(document(), "utf-8")
