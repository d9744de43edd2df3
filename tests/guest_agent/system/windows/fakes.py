"""A Windows in memory: what guest_agent.system.windows.api describes, as far as the contracts here go."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from guest_agent.system.windows.api import Account, Adapter, CallError, Ended, Entry, Status, Value, Windows

PREFIX = "\\\\?\\"

SYSTEM_SID = "S-1-5-18"
ADMINISTRATORS_SID = "S-1-5-32-544"
MACHINE_SID = "S-1-5-21-1-2-3"
SOMEBODY = MACHINE_SID + "-1001"

_SIDS = {"SY": SYSTEM_SID, "BA": ADMINISTRATORS_SID, "BU": "S-1-5-32-545", "WD": "S-1-1-0", "CO": "S-1-3-0"}
_RIGHTS = {"FA": 0x1F01FF, "FR": 0x120089, "FW": 0x120116, "GA": 0x10000000, "GW": 0x40000000}
_FLAGS = {"OI": 1, "CI": 2, "NP": 4, "IO": 8, "ID": 16}
_ENTRY = re.compile(r"\((A|D);((?:OI|CI|NP|IO|ID)*);(\w+);;;([A-Z]{2}|S-[\d-]+)\)")

# Whoever may do what in C:\ and in %ProgramData% of a new Windows, shortened.
ROOT_LIST = "D:PAI(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)(A;OICI;0x1200a9;;;BU)"
PROGRAM_DATA_LIST = "D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICIIO;GA;;;CO)(A;CI;0x116;;;BU)"


def entries_of(dacl: str) -> tuple[Entry, ...] | None:
    if "NO_ACCESS_CONTROL" in dacl:
        return None
    found = []
    for kind, flags, rights, sid in _ENTRY.findall(dacl):
        mask = _RIGHTS[rights] if rights in _RIGHTS else int(rights, 16)
        number = sum(_FLAGS[flags[at : at + 2]] for at in range(0, len(flags), 2))
        found.append(Entry(kind == "A", number, mask, _SIDS.get(sid, sid)))
    return tuple(found)


def inherited(dacl: str, *, directory: bool) -> str:
    text = "D:AI"
    for kind, flags, rights, sid in _ENTRY.findall(dacl):
        if ("CI" if directory else "OI") in flags:
            text += f"({kind};{flags.replace('ID', '') if directory else ''}ID;{rights};;;{sid})"
    return text


@dataclass
class Node:
    path: str
    attributes: int
    owner: str = ADMINISTRATORS_SID
    dacl: str = ROOT_LIST
    content: bytes = b""

    def status(self) -> Status:
        return Status(self.attributes, self.owner, self.dacl, entries_of(self.dacl))


DIRECTORY, ARCHIVE, READ_ONLY, REPARSE_POINT = 0x10, 0x20, 0x1, 0x400


@dataclass
class FakeFiles:
    """errors: numbers that the next calls of that name end with, None for one that goes well. used: what is open.

    creating: called with the path of each new file once it is there.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    errors: dict[str, list[int | None]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    held: list[str] = field(default_factory=list)
    at_boot: list[str] = field(default_factory=list)
    flushed: list[str] = field(default_factory=list)
    creating: object = None

    def __post_init__(self) -> None:
        self.add(PREFIX + "C:\\", attributes=DIRECTORY)

    def add(self, path: str, *, attributes: int = ARCHIVE, **more: object) -> Node:
        node = Node(path, attributes, **more)  # type: ignore[arg-type]
        self.nodes[key(path)] = node
        return node

    def __getitem__(self, path: str) -> Node:
        return self.nodes[key(PREFIX + path)]

    def names(self, directory: str) -> list[str]:
        start = key(PREFIX + directory).rstrip("\\") + "\\"
        return sorted(
            node.path[len(start) :]
            for path, node in self.nodes.items()
            if path.startswith(start) and path != start and "\\" not in path[len(start) :]
        )

    def _call(self, name: str) -> None:
        planned = self.errors.get(name)
        number = planned.pop(0) if planned else None
        if number is not None:
            raise CallError(name, number, "planned")

    def _node(self, name: str, path: str) -> Node:
        self._call(name)
        if key(path) not in self.nodes:
            raise CallError(name, 2 if self._parent(path) else 3, "The system cannot find the file specified.")
        return self.nodes[key(path)]

    def _parent(self, path: str) -> Node | None:
        parent = self.nodes.get(key(path).rpartition("\\")[0]) or self.nodes.get(key(path).rpartition("\\")[0] + "\\")
        return parent if parent and parent.attributes & DIRECTORY else None

    def _unused(self, name: str, path: str) -> None:
        if key(path) in self.used:
            raise CallError(name, 32, "The process cannot access the file.")

    def is_fixed(self, drive: str) -> bool:
        return drive == "C:"

    def hold(self, path: str, *, for_protection: bool = False) -> FakeHeld:
        node = self._node("hold", path)
        self._unused("hold", path)
        self.held.append(key(path))
        return FakeHeld(self, node)

    def look(self, path: str) -> Status | None:
        self._call("look")
        node = self.nodes.get(key(path))
        return node.status() if node else None

    def read(self, path: str, limit: int) -> tuple[Status, bytes] | None:
        self._call("read")
        node = self.nodes.get(key(path))
        return (node.status(), node.content[:limit]) if node else None

    def make_directory(self, path: str, dacl: str | None) -> None:
        self._call("make_directory")
        parent = self._new("make_directory", path, 183)
        self.add(path, attributes=DIRECTORY, dacl=_list(dacl) or inherited(parent.dacl, directory=True))

    def _new(self, name: str, path: str, number: int) -> Node:
        parent = self._parent(path)
        if parent is None:
            raise CallError(name, 3, "The system cannot find the path specified.")
        if key(path) in self.nodes:
            raise CallError(name, number, "It exists.")
        return parent

    def create(self, path: str, content: bytes, *, dacl: str | None, owner: str | None) -> None:
        parent = self._new("create", path, 80)
        self._call("create")
        self.add(
            path,
            content=content,
            dacl=_list(dacl) or inherited(parent.dacl, directory=False),
            owner=owner or ADMINISTRATORS_SID,
        )
        if callable(self.creating):
            self.creating(path)

    def replace(self, path: str, replacement: str, backup: str) -> None:
        planned = self.errors.get("replace")
        number = planned.pop(0) if planned else None
        old, new = self._node("replace", path), self._node("replace", replacement)
        if old.attributes & READ_ONLY:
            raise CallError("replace", 5, "Access is denied.")
        self._unused("replace", path)
        if number == 1177:
            self._rename(path, backup)
        if number is not None:
            raise CallError("replace", number, "planned")
        self._rename(path, backup)
        self._rename(replacement, path)
        new.attributes, new.dacl = old.attributes, old.dacl

    def _rename(self, source: str, target: str) -> None:
        node = self.nodes.pop(key(source))
        node.path = target
        self.nodes[key(target)] = node

    def move(self, source: str, target: str, *, replace: bool) -> None:
        node = self._node("move", source)
        present = self.nodes.get(key(target))
        if present and (not replace or present.attributes & DIRECTORY):
            raise CallError("move", 5 if replace else 183, "It exists.")
        if present and present.attributes & READ_ONLY:
            raise CallError("move", 5, "Access is denied.")
        for path in (source, target):
            self._unused("move", path)
        if any(held == key(source) or held.startswith(key(source) + "\\") for held in self.held):
            raise CallError("move", 32, "The process cannot access the file.")
        self._rename(node.path, target)

    def remove(self, path: str) -> None:
        node = self._node("remove", path)
        self._unused("remove", path)
        if node.attributes & (READ_ONLY | DIRECTORY):
            raise CallError("remove", 5, "Access is denied.")
        del self.nodes[key(path)]

    def remove_at_boot(self, path: str) -> None:
        self._node("remove_at_boot", path)
        self.at_boot.append(path)

    def set_attributes(self, path: str, attributes: int) -> None:
        self._node("set_attributes", path).attributes = attributes

    def flush(self, path: str) -> None:
        node = self._node("flush", path)
        self.flushed.append(node.path)


def key(path: str) -> str:
    assert path.startswith(PREFIX), path
    return path.casefold()


def _list(sddl: str | None) -> str | None:
    return sddl[sddl.index("D:") :] if sddl else None


@dataclass
class FakeHeld:
    files: FakeFiles
    node: Node

    def status(self) -> Status:
        return self.node.status()

    def protect(self, owner: str, dacl: str) -> None:
        self.files._call("protect")
        self.node.owner, self.node.dacl = owner, dacl

    def close(self) -> None:
        self.files.held.remove(key(self.node.path))


@dataclass
class FakeRegistry:
    values: dict[tuple[str, str], Value] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    error: int = 0

    def value(self, key: str, name: str) -> Value | None:
        self._fail()
        return self.values.get((key.casefold(), name.casefold()))

    def set(self, key: str, name: str, value: Value | None) -> None:
        if value is None:
            self.values.pop((key.casefold(), name.casefold()), None)
        else:
            self.values[key.casefold(), name.casefold()] = value

    def has_key(self, key: str) -> bool:
        self._fail()
        return key.casefold() in {known.casefold() for known in (*self.keys, *(key for key, _ in self.values))}

    def _fail(self) -> None:
        if self.error:
            raise CallError("RegQueryValueEx", self.error, "planned")


CONTROL = "SYSTEM\\CurrentControlSet\\Control"
TCPIP = "SYSTEM\\CurrentControlSet\\Services\\Tcpip\\Parameters"
VERSION = "SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion"


@dataclass
class FakeMachine:
    """errors: numbers that calls of that name end with."""

    registry: FakeRegistry
    build: int = 20348
    domain: bool = False
    activated: bool = False
    forgetful: bool = False
    found: Sequence[Adapter] = ()
    errors: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for value in ("Hostname", "NV Hostname"):
            self.registry.set(TCPIP, value, "Old-Name")
        for key in ("ComputerName", "ActiveComputerName"):
            self.registry.set(f"{CONTROL}\\ComputerName\\{key}", "ComputerName", "OLD-NAME")

    def _call(self, name: str) -> None:
        if name in self.errors:
            raise CallError(name, self.errors[name], "planned")

    def version(self) -> tuple[int, int, int]:
        self._call("version")
        return 10, 0, self.build

    def boot_time(self) -> int:
        self._call("boot_time")
        return 0x01DD7B21DF8D09D6

    def hostname(self) -> str:
        self._call("hostname")
        return str(self.registry.value(TCPIP, "Hostname"))

    def set_hostname(self, name: str) -> None:
        self._call("set_hostname")
        if not self.forgetful:
            self.registry.set(TCPIP, "NV Hostname", name)
            self.registry.set(f"{CONTROL}\\ComputerName\\ComputerName", "ComputerName", name[:15].upper())

    def in_domain(self) -> bool:
        self._call("in_domain")
        return self.domain

    def adapters(self) -> Sequence[Adapter]:
        self._call("adapters")
        return self.found

    def system_directory(self) -> str:
        self._call("system_directory")
        return "C:\\Windows\\system32"

    def licensed(self) -> bool:
        self._call("licensed")
        return self.activated


UF_NORMAL = 0x201


@dataclass
class FakeAccounts:
    """Accounts by name. errors: numbers that calls of that name end with. minimum: the policy's length.

    log: what was changed, without passwords.
    """

    users: dict[str, Account] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    minimum: int = 0
    expires: bool = True
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.add("Administrator", 500)
        self.add("ann", 1001)

    def add(self, name: str, rid: int, flags: int = UF_NORMAL) -> None:
        self.users[name] = Account(f"{MACHINE_SID}-{rid}", rid, 513, flags, False)

    def _call(self, name: str) -> None:
        if name in self.errors:
            raise CallError(name, self.errors[name], f"planned {self.errors[name]}\r\n")

    def _user(self, call: str, name: str) -> Account:
        self._call(call)
        for known, account in self.users.items():
            if known.casefold() == name.casefold():
                return account
        raise CallError(call, 2221, "The user name could not be found.")

    def own_sid(self) -> str:
        self._call("own_sid")
        return SYSTEM_SID

    def machine_sid(self) -> str:
        self._call("machine_sid")
        return MACHINE_SID

    def name_of(self, sid: str) -> str:
        for name, account in self.users.items():
            if account.sid == sid:
                return name
        raise CallError("LookupAccountSid", 1332, "No mapping between account names and security IDs was done.")

    def sid_of(self, name: str) -> str:
        self._call("sid_of")
        if name == "Administrators":
            return ADMINISTRATORS_SID
        for known, account in self.users.items():
            if known.casefold() == name.casefold():
                return account.sid
        raise CallError("LookupAccountName", 1332, "No mapping between account names and security IDs was done.")

    def account(self, name: str) -> Account:
        return self._user("account", name)

    def set_password(self, name: str, password: str) -> None:
        self._user("set_password", name)
        if len(password) < self.minimum:
            raise CallError("NetUserSetInfo", 2245, "The password does not meet the password policy requirements.\r\n")
        self.passwords[name] = password
        self.log.append(f"password {name}")

    def set_flags(self, name: str, flags: int) -> None:
        self.users[name] = replace(self._user("set_flags", name), flags=flags)
        self.log.append(f"flags {name} {flags:#x}")

    def expire_password(self, name: str) -> None:
        self.users[name] = replace(self._user("expire_password", name), password_expired=self.expires)
        self.log.append(f"expire {name}")

    def minimum_password_length(self) -> int:
        self._call("minimum_password_length")
        return self.minimum


@dataclass
class FakeRun:
    """Programs that are run. answers: how the next ones end."""

    answers: list[Ended | Exception] = field(default_factory=list)
    seen: list[tuple[list[str], dict[str, str], float]] = field(default_factory=list)

    def __call__(self, arguments: Sequence[str], environment: Mapping[str, str], timeout: float) -> Ended:
        self.seen.append((list(arguments), dict(environment), timeout))
        answer = self.answers.pop(0) if self.answers else Ended(0, "done")
        if isinstance(answer, Exception):
            raise answer
        return answer


@dataclass
class FakeWindows:
    """All of them, with %ProgramData% as a new Windows has it."""

    files: FakeFiles = field(default_factory=FakeFiles)
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    accounts: FakeAccounts = field(default_factory=FakeAccounts)
    run: FakeRun = field(default_factory=FakeRun)

    def __post_init__(self) -> None:
        self.machine = FakeMachine(self.registry)
        self.files.add(PREFIX + "C:\\ProgramData", attributes=DIRECTORY, dacl=PROGRAM_DATA_LIST, owner=SYSTEM_SID)

    @property
    def api(self) -> Windows:
        return Windows(self.accounts, self.files, self.registry, self.machine, self.run)

    # What the contracts need besides.

    wine = False
    has_accounts = True

    @contextlib.contextmanager
    def use(self, path: str) -> Iterator[None]:
        self.files.used.add(key(path))
        yield
        self.files.used.remove(key(path))

    def make_junction(self, path: str, target: str) -> None:
        self.files.add(path, attributes=DIRECTORY | REPARSE_POINT)

    def set_value(self, name: str, value: Value) -> None:
        self.registry.set(self.registry_key, name, value)

    registry_key = "SOFTWARE\\xenward-test"
