"""What every Windows keeps to: the one in memory (test_contract.py) and the real one.

In Windows itself, as an administrator, or in Wine: `python -m tests.guest_agent.system.windows.contract`. That changes
nothing but a temporary directory and a key of its own in the registry; with `--disposable` also the machine's name, as
befits a machine that is thrown away.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import Callable, Protocol

from guest_agent.system.windows.api import CallError, Value, Windows


class World(Protocol):
    """A Windows, and what is needed to put it into the states that the contracts are about.

    wine: whether it is none, but Wine. has_accounts: no for Wine as it is. registry_key: below HKEY_LOCAL_MACHINE, for
    set_value.
    """

    wine: bool
    has_accounts: bool
    registry_key: str

    @property
    def api(self) -> Windows: ...

    def use(self, path: str) -> contextlib.AbstractContextManager[None]:
        """Have a file open, as another program may have it that does not share it for being removed."""

    def make_junction(self, path: str, target: str) -> None: ...

    def set_value(self, name: str, value: Value) -> None: ...


Check = Callable[[World, str], None]
"""Called with a directory in the extended form, which is empty."""

CHECKS: dict[str, Check] = {}

NOT_IN_WINE: dict[str, str] = {}
"""Why a check cannot pass in Wine."""

NEEDS_ACCOUNTS: set[str] = set()

DISPOSABLE: set[str] = set()
"""Those that leave something changed."""


def check(*, not_in_wine: str = "", needs_accounts: bool = False, disposable: bool = False) -> Callable[[Check], Check]:
    def decorate(function: Check) -> Check:
        CHECKS[function.__name__] = function
        if not_in_wine:
            NOT_IN_WINE[function.__name__] = not_in_wine
        if needs_accounts:
            NEEDS_ACCOUNTS.add(function.__name__)
        if disposable:
            DISPOSABLE.add(function.__name__)
        return function

    return decorate


class fails:
    """As pytest.raises for a CallError with one of these numbers; pytest is not there in Windows."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> bool:
        assert isinstance(error, CallError), f"ended with {error!r} instead of a CallError"
        assert error.number in self._numbers, f"ended with {error.number} instead of {self._numbers}: {error}"
        return True


def left_out(name: str, world: World) -> str:
    """Why a check is not done in that world; empty when it is."""
    if name in DISPOSABLE and "--disposable" not in sys.argv:
        return "only with --disposable"
    if name in NEEDS_ACCOUNTS and not world.has_accounts:
        return "Wine has no accounts, and nobody that files could belong to"
    return NOT_IN_WINE.get(name, "") if world.wine else ""


def main() -> int:
    from . import contract_accounts, contract_files, contract_machine  # noqa: F401
    from .real import RealWorld

    failed = 0
    for name, function in CHECKS.items():
        with RealWorld() as (world, directory):
            reason = left_out(name, world)
            if reason:
                print(f"left out {name}: {reason}", flush=True)
                continue
            try:
                function(world, directory)
            except Exception:
                failed += 1
                print(f"FAILED {name}: {traceback.format_exc()}", flush=True)
            else:
                print(f"ok {name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    # Under its own name, or the checks would be collected by another module than this one.
    from tests.guest_agent.system.windows import contract

    sys.exit(contract.main())
