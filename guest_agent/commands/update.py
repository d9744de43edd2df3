"""The update of the agent itself, from an artefact that is signed by the key in the guest's configuration.

What does the work is loaded when it is asked for, which is seldom.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent_protocol.digests import sha256_hex
from agent_protocol.outcomes import Refused, Unsupported
from agent_protocol.strict import SHA256_HEX

from ..launch import parse_version
from ..update.running import PROCESS, Launch
from .arguments import MAX_FILE, bad, from_base64, json_object, optional_text, text
from .table import CLEAR, SEALED, Context, Result, command

if TYPE_CHECKING:
    from ..update.artefact import Artefact

MAX_VALUE = 2 * MAX_FILE
"""Characters of agent_update's value: an artefact of MAX_FILE bytes in base64 takes two thirds of it."""


@dataclass(frozen=True)
class Update:
    """What is to be installed: a version, its artefact's checksum, and the signature over both.

    url: where the artefact is, when it isn't in `content`; it may hold a token.
    """

    version: str
    sha256: str
    signature: str
    url: str | None = field(repr=False)
    content: bytes | None = field(repr=False)


def _parse(untrusted_value: str) -> Update:
    from ..update.download import check_url

    members = json_object(untrusted_value, ["version", "sha256", "signature"], ["url", "content"])
    version, sha256 = text(members, "version"), text(members, "sha256")
    if parse_version(version) is None:
        raise bad("version has three numbers with dots between them")
    if not SHA256_HEX.match(sha256):
        raise bad("sha256 must have 64 hexadecimal digits, in lower case")
    url, content = optional_text(members, "url"), members.get("content")
    if (url is None) is (content is None):
        raise bad("exactly one of url and content must be there")
    return Update(
        version,
        sha256,
        text(members, "signature"),
        None if url is None else check_url(url),
        None if content is None else from_base64(content, "content"),
    )


# Its address may hold a token, so the value is a secret.
@command("agent_update", tables=SEALED, parse=_parse, max_value=MAX_VALUE, secret=True)
def agent_update(context: Context, update: Update) -> Result:
    """Install a newer agent, which is started as soon as this is answered, and kept when it comes to serve."""
    from ..update.installation import check_requirements, install, prepare
    from ..update.statement import verify

    key, launch = context.configuration.update_key, PROCESS.launch
    if key is None:
        raise Unsupported("no_update_key", "this guest's configuration names no key that updates are signed by")
    if launch is None:
        raise Unsupported("no_launcher", "this agent was not started by its launcher, so no update would be")
    # Before anything is fetched: who did not sign cannot make the guest reach out to anybody.
    verify(key, update.version, update.sha256, update.signature)
    if (parse_version(update.version) or ()) <= (parse_version(context.version) or ()):
        raise Refused("update_not_newer", f"version {context.version} runs, and {update.version} is not newer")
    prepare(launch.updates)
    artefact = _artefact(update, launch)
    check_requirements(artefact, context.version)
    install(launch, artefact, context.system.root)
    PROCESS.restart_wanted = True
    return Result("", {"version": update.version, "previous": context.version, "state": "installed"})


def _artefact(update: Update, launch: Launch) -> Artefact:
    from ..update.artefact import read_artefact, unfit
    from ..update.download import download

    content = update.content
    if content is None:
        content = download(update.url or "", f"{launch.updates}/artefact.unfinished")
    if sha256_hex(content) != update.sha256:
        raise Refused("checksum_mismatch", "the artefact does not have the SHA-256 checksum that was signed")
    artefact = read_artefact(content)
    if artefact.version != update.version:
        raise unfit(f"it is version {artefact.version}, and {update.version} was announced")
    return artefact


@command("agentupdate", tables=CLEAR, parse=str, secret=True, announced=False)
def legacy_update(context: Context, untrusted_value: str) -> Result:
    """What old hosts send to have any program fetched and run: an address and an MD5 checksum."""
    del context, untrusted_value
    raise Unsupported("unsigned_update", "this agent takes signed updates only, by the sealed command agent_update")
