"""The keys that may log in to an account through SSH. Lines of others are never touched."""

from __future__ import annotations

from dataclasses import dataclass

from agent_protocol.outcomes import Busy, Refused

from ..configuration import REFUSE
from ..system.accounts import check_account_name
from ..system.authorized_keys import MAX_KEY_LINE, AuthorizedKey
from .arguments import bad, json_object, optional_text, text_list
from .table import BOTH, Context, Result, command

MAX_KEYS = 64
"""Keys in one request, for adding and for removing each: more than any person or cloud has for one account."""


@dataclass(frozen=True)
class KeyChange:
    """Keys to add to an account and keys to take from it. user: None for the administrator."""

    user: str | None
    add: tuple[AuthorizedKey, ...]
    remove: tuple[AuthorizedKey, ...]


def _parse(untrusted_value: str) -> KeyChange:
    members = json_object(untrusted_value, [], ["user", "add", "remove"])
    user = optional_text(members, "user")
    change = KeyChange(
        None if user is None else check_account_name(user),
        tuple(AuthorizedKey(line) for line in text_list(members, "add", MAX_KEYS)),
        tuple(AuthorizedKey(line) for line in text_list(members, "remove", MAX_KEYS)),
    )
    if not change.add and not change.remove:
        raise bad("there is no key to add or to remove")
    if {key.identity for key in change.add} & {key.identity for key in change.remove}:
        raise bad("one key is to be added and removed")
    return change


@command("ssh_keys", tables=BOTH, parse=_parse, max_value=MAX_KEYS * MAX_KEY_LINE)
def ssh_keys(context: Context, change: KeyChange) -> Result:
    """Add and remove keys; tells how many of them were not there, or were there, before.

    cloud-init may write the same file from what it read before: Busy (`cloud_init_at_work`) until it has ended its work
    of this boot. Refused (`cloud_init_owns_ssh_keys`) when the agent's configuration leaves the keys to it.
    """
    system = context.system
    _check_cloud_init(context)
    user = system.administrator if change.user is None else change.user
    added, removed = system.change_ssh_keys(user, change.add, change.remove)
    return Result(f"{added} added, {removed} removed", {"added": added, "removed": removed})


def _check_cloud_init(context: Context) -> None:
    cloud_init = context.system.cloud_init()
    if cloud_init.enabled and context.configuration.cloud_init_ssh_keys == REFUSE:
        raise Refused(
            "cloud_init_owns_ssh_keys",
            f"this guest leaves its SSH keys to cloud-init, see [cloud-init] in {context.system.configuration_name}",
        )
    if cloud_init.at_work:
        raise Busy("cloud_init_at_work", "cloud-init is still at work in this guest and may write the same file")
