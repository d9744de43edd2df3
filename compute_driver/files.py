"""Files that are put into guests."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_protocol.outcomes import Refused


@dataclass(frozen=True)
class InjectedFile:
    """A file for a guest.

    mode: permission bits; None keeps those of the file that is replaced, and is 0600 for a new one.
    owner: `user` or `user:group` as the guest knows them; None keeps, or is the superuser.
    """

    path: str
    content: bytes = field(repr=False)
    mode: int | None = None
    owner: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data, the content in base64."""
        return {**vars(self), "content": base64.b64encode(self.content).decode("ascii")}

    def to_command(self) -> str:
        """The value of an agent's command `file_put`."""
        members = {"path": self.path, "content": base64.b64encode(self.content).decode("ascii")}
        if self.mode is not None:
            members["mode"] = f"{self.mode:04o}"
        if self.owner is not None:
            members["owner"] = self.owner
        return json.dumps(members, separators=(",", ":"))

    @classmethod
    def from_dict(cls, untrusted: Mapping[str, Any]) -> InjectedFile:
        """From such data; Refused when it is not of that form."""
        path, content = untrusted.get("path"), untrusted.get("content")
        mode, owner = untrusted.get("mode"), untrusted.get("owner")
        if not isinstance(path, str) or not isinstance(content, str):
            raise Refused("bad_file", "a file needs a path, and its content in base64")
        if not (mode is None or (type(mode) is int and 0 <= mode <= 0o7777)):
            raise Refused("bad_file", "the mode of a file is a number of at most four octal digits")
        if not (owner is None or isinstance(owner, str)):
            raise Refused("bad_file", "the owner of a file is a string")
        try:
            return cls(path, base64.b64decode(content, validate=True), mode, owner)
        except ValueError:
            raise Refused("bad_file", "the content of a file must be base64") from None
