"""The tables in docs/reconciliation.md are those that the service goes by."""

from __future__ import annotations

import re
from pathlib import Path

from compute_driver.manager import following, reconciliation
from compute_driver.manager.operations import OPERATIONS, Interrupted, Operation

TEXT = (Path(__file__).resolve().parents[2] / "docs/reconciliation.md").read_text("utf-8")


def table(first: str) -> list[list[str]]:
    """The rows of the table whose first column is called so."""
    block = re.search(rf"^\| {first} \|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert block is not None
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.group(1).splitlines()]


def described(operation: Operation) -> list[str]:
    states = operation.vm_states
    allowed = "any" if states is None else " ".join(f"`{state}`" for state in sorted(map(str, states)))
    power = "" if operation.power is None else f": {operation.power.word}"
    return [f"`{operation.action}`", f"`{operation.task_state}`", allowed, operation.interrupted.value + power]


def test_every_operation_is_described_as_it_is() -> None:
    assert table("action") == [described(operation) for operation in OPERATIONS]


def test_every_way_is_explained() -> None:
    assert [row[0] for row in table("word")] == [way.value for way in Interrupted]
    outcomes = {word for row in table("word") for word in re.findall(r"`(\w+)`", row[2])}
    assert outcomes == {"failed", "succeeded", "unknown"}


def test_every_code_of_a_decision_is_told() -> None:
    told = {word for row in table("found") for word in re.findall(r"`(\w+)`", row[1])}
    codes = {reconciliation.FOUND_DONE, reconciliation.INTERRUPTED, reconciliation.SERVICE_ENDED}
    assert told == codes | {"succeeded", "failed", "unknown", "unreachable"}


def test_what_follows_a_guest_is_described_as_it_is() -> None:
    followed = [[power.word, f"`{state}`", f"`{code}`"] for power, (state, code) in following._FOLLOWED.items()]
    assert table("the guest is") == followed
    (sentence,) = re.findall(r"An instance in ([^.]*?)\nwith|An instance in (.*?) with nothing", TEXT, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", "".join(sentence))) == {str(state) for state in following._FOLLOWING}
    assert "`guest_missing`" in TEXT
    assert f"action `{following.ACTION}` of the user `{following.USER}`" in TEXT
