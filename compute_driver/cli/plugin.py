"""`xenward host …-plugin`: the dom0 plugin on each host of the pool."""

from __future__ import annotations

import argparse
import hashlib
import re
import shlex
import subprocess
import zipfile
from pathlib import Path
from typing import Any

from cliff.lister import Lister

from agent_protocol.outcomes import Failed, Outcome, Refused, Unreachable, Unsupported

from ..context import RequestContext
from .base import EXIT_STATUS, Fields, Order, Question

PLUGIN = "/etc/xapi.d/plugins/xenward"
"""Where XAPI looks for the plugin (xapi_globs.ml)."""

_INSTALL = """\
set -e
umask 077
trap 'rm -f {new}' EXIT
cat > {new}
echo '{digest}  {new}' | sha256sum -c --quiet - >&2
chmod 0755 {new}
mv -f {new} {plugin}
"""
"""Run by a shell in dom0, with the plugin on standard input. A call of XAPI finds the old plugin or the new one."""

_LOGIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9\[:][A-Za-z0-9.:\]-]*\Z", re.ASCII)

_STDERR = 2
"""As a file descriptor: what ssh says is no part of our answer."""

_SSH_FAILED = 255
"""ssh's own exit status when the other side was not reached; others are those of the script."""


class CheckPlugin(Question, Lister):
    """Ask hosts for their dom0 plugin. The exit status is that of the first that is not good, 0 when all are."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("hosts", nargs="*", metavar="HOST", help="name of a host (default: all)")
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        self._status = 0
        return super().run(parsed_args) or self._status

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[list[Any]]]:
        nodes = self.app.client.ask(self.app.new_context(), "check_nodes", names=parsed_args.hosts)
        statuses = [EXIT_STATUS[Outcome(node["helper"])] for node in nodes]
        self._status = next(filter(None, statuses), 0)
        rows = [
            [node["hypervisor_hostname"], word(node), node["helper_version"], node["code"], node["message"]]
            for node in nodes
        ]
        return ["host", "plugin", "version", "code", "message"], rows


def word(node: dict[str, Any]) -> str:
    """The state of a host's plugin."""
    if node["helper"] == str(Outcome.SUCCEEDED):
        return "ok"
    return {"plugin_missing": "missing", "plugin_too_old": "too old"}.get(node["code"], "unknown")


class InstallPlugin(Order):
    """Put the dom0 plugin onto a host by ssh, as yourself, in place of the one that is there; then check it.

    XenAPI cannot put files into dom0: it takes your own ssh, with your keys and your agent.
    """

    # The compute service has no part in it.
    asking = ""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("host", metavar="HOST", help="name of the host, to check the plugin by afterwards")
        parser.add_argument("--ssh", required=True, metavar="USER@ADDRESS", help="dom0's superuser there")
        parser.add_argument(
            "--plugin", type=Path, default=Path("dist/xenward"), help="what `tools/package plugin` made (%(default)s)"
        )
        parser.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")

    def order(self, context: RequestContext, parsed: argparse.Namespace) -> Fields:
        if not _LOGIN.match(parsed.ssh):
            raise Refused("bad_ssh_login", "--ssh takes USER@ADDRESS")
        content = _plugin(parsed.plugin)
        command = ["ssh", "-o", "ConnectTimeout=30", "--", parsed.ssh, _script(content)]
        if parsed.dry_run:
            return {"command": f"{shlex.join(command)} < {shlex.quote(str(parsed.plugin))}"}
        # Before anything is changed: whether there is such a host at all.
        self.app.client.ask(context, "check_nodes", names=[parsed.host])
        _run(command, content)
        (node,) = self.app.client.ask(context, "check_nodes", names=[parsed.host])
        if node["code"] == "plugin_missing":
            raise Failed("other_host", f"the plugin is at {parsed.ssh}, but not on the host {parsed.host}")
        if node["helper"] != str(Outcome.SUCCEEDED):
            raise Unreachable(node["code"], f"the plugin is installed and cannot be used: {node['message']}")
        return {"host": parsed.host, "plugin": word(node), "version": node["helper_version"]}


def _plugin(path: Path) -> bytes:
    """The file, if it is the plugin."""
    try:
        with zipfile.ZipFile(path) as archive:
            is_plugin = "dom0_plugins/__main__.py" in archive.namelist()
        content = path.read_bytes()
    except OSError as error:
        raise Refused("unreadable_file", f"{path}: {error.strerror}") from None
    except zipfile.BadZipFile:
        is_plugin, content = False, b""
    if not is_plugin or not content.startswith(b"#!"):
        raise Refused("not_the_plugin", f"{path} is not what `tools/package plugin` makes")
    return content


def _script(content: bytes) -> str:
    names = {"plugin": PLUGIN, "new": f"{PLUGIN}.new"}
    return _INSTALL.format(digest=hashlib.sha256(content).hexdigest(), **names)


def _run(command: list[str], content: bytes) -> None:
    """Run ssh. What it says goes to the operator's terminal, where it asks, too."""
    try:
        status = subprocess.run(command, input=content, stdout=_STDERR, check=False).returncode
    except FileNotFoundError:
        raise Unsupported("ssh_missing", "there is no ssh on this machine") from None
    if status == _SSH_FAILED:
        raise Unreachable("ssh_failed", "ssh did not reach dom0")
    if status != 0:
        raise Failed("plugin_not_installed", f"dom0 did not take the plugin (exit status {status}); nothing is changed")


COMMANDS = {
    "host check-plugin": CheckPlugin,
    "host install-plugin": InstallPlugin,
}
