"""The main job, end to end: boot a guest, set its password, put a file, and prove it from the guest's own disk.

Everything between this command and the guest is the real path: the bus, the manager and its database, the driver,
XenAPI over HTTP, the dom0 plugin as a process, XenStore, the agent as a process. The XenServer is simulated.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table

from agent_protocol.outcomes import Unsuccessful
from compute_driver import passwords
from compute_driver.context import RequestContext
from compute_driver.files import InjectedFile
from tools.commands import embedded, proof
from tools.commands.environment import VIRTUAL_ENVIRONMENT
from tools.simulator.process import SimulatorProcess

NAME = "quickstart"
FIRST_FILE = InjectedFile("/etc/motd", b"Booted by xenward.\n", 0o644, "root:root")
SECOND_FILE_PATH = "/root/xenward/token"


@dataclass
class Findings:
    """What was seen. The command succeeds only if every proof holds."""

    instance: str = ""
    power_state: str = ""
    protocol: str = ""
    password_verified: bool = False
    old_password_rejected: bool = False
    ssh_key_verified: bool = False
    file_verified: bool = False
    boot_seconds: float = 0.0
    password_seconds: float = 0.0
    file_seconds: float = 0.0
    actions: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    @property
    def proven(self) -> bool:
        """Whether everything that was asked for was seen to have happened."""
        return (
            self.power_state == "running"
            and self.password_verified
            and self.old_password_rejected
            and self.ssh_key_verified
            and self.file_verified
            and all(action["outcome"] == "succeeded" for action in self.actions)
            and not self.error
        )


def main() -> int:
    """`tools/quickstart`: returns 0 when everything was proven, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="tools/quickstart", description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="end with one line of JSON on standard output")
    parser.add_argument("--keep", action="store_true", help="leave the simulated XenServer and the guest running")
    options = parser.parse_args()
    console = Console(stderr=options.json)
    state = Path(tempfile.mkdtemp(prefix="xenward-quickstart-"))
    # A terminal is not to be held by what goes on after this command.
    log = state / "xenserver.log" if options.keep else None
    simulator = SimulatorProcess(["--state", str(state / "xenserver")], detached=options.keep, log=log)
    findings = Findings()
    try:
        with console.status("Starting a simulated XenServer"):
            simulator.start()
        settings = embedded.write_settings(state, simulator)
        with embedded.client(settings) as client:
            _Job(console, client, simulator, findings).run()
    except Unsuccessful as error:
        findings.error = f"{error} ({error.outcome}, {error.code})"
    except proof.NotProven as claim:
        findings.error = f"{claim}: not proven"
    finally:
        if not options.keep:
            simulator.stop()
            shutil.rmtree(state)
    _show(console, findings)
    if options.keep:
        _show_what_is_left(console, settings, simulator, state)
    if options.json:
        print(json.dumps({name: value for name, value in vars(findings).items() if name != "error" or value}))
    return 0 if findings.proven else 1


class _Job:
    def __init__(self, console: Console, client: Any, simulator: SimulatorProcess, findings: Findings) -> None:
        self._console = console
        self._client = client
        self._simulator = simulator
        self._findings = findings

    def run(self) -> None:
        first, second = passwords.generate(), passwords.generate()
        key = _ssh_key()
        second_file = InjectedFile(SECOND_FILE_PATH, secrets.token_bytes(256), 0o600, "root")
        try:
            created = self._order(
                "Booting a guest, with a password, an SSH key and a file",
                "build_and_run_instance",
                display_name=NAME,
                memory_mb=512,
                vcpus=1,
                root_gb=1,
                admin_password=first.value,
                injected_files=[FIRST_FILE.to_dict()],
                ssh_keys=[key],
            )
            self._findings.instance = created["uuid"]
            guest = self._guest_root()
            proof.require(proof.password_opens(guest, "root", first.value), "the first password opens the guest")
            self._findings.password_seconds = self._timed(
                "Resetting the password", "set_admin_password", target=NAME, new_pass=second.value
            )
            self._findings.file_seconds = self._timed(
                "Putting a second file", "inject_file", target=NAME, file=second_file.to_dict()
            )
            self._prove(guest, first.value, second.value, key, [FIRST_FILE, second_file])
        finally:
            self._tell()

    def _order(self, what: str, method: str, **arguments: Any) -> Any:
        with self._console.status(what):
            answer = self._client.order(RequestContext.new("quickstart"), method, **arguments)
        self._console.print(f"[green]✓[/green] {what}")
        return answer

    def _timed(self, what: str, method: str, **arguments: Any) -> float:
        began = time.monotonic()
        self._order(what, method, **arguments)
        return round(time.monotonic() - began, 3)

    def _ask(self, method: str, **arguments: Any) -> Any:
        return self._client.ask(RequestContext.new("quickstart"), method, **arguments)

    def _guest_root(self) -> Path:
        import XenAPI

        session = XenAPI.Session(self._simulator.url)
        session.login_with_password(self._simulator.username, self._simulator.password)
        (vm,) = session.xenapi.VM.get_by_name_label(f"instance-{self._findings.instance}")
        uuid = session.xenapi.VM.get_uuid(vm)
        session.xenapi.session.logout()
        return self._simulator.guest_root(uuid)

    def _prove(self, guest: Path, old: str, new: str, key: str, files: list[InjectedFile]) -> None:
        findings = self._findings
        shown = self._ask("get_instance", target=NAME)
        findings.power_state = shown["power_state"]
        findings.protocol = shown["agent"]["protocol"]
        findings.password_verified = proof.password_opens(guest, "root", new)
        findings.old_password_rejected = not proof.password_opens(guest, "root", old)
        findings.ssh_key_verified = proof.key_is_authorized(guest, "root", key)
        findings.file_verified = all(proof.file_is(guest, file) for file in files)

    def _tell(self) -> None:
        """What the audit trail says, also about a job that went wrong."""
        self._findings.actions = [
            {
                "action": f"{action['action']}/{action['step']}" if action["step"] else action["action"],
                "outcome": action["outcome"],
                "seconds": round(action["seconds"] or 0.0, 3),
            }
            for action in self._ask("list_actions", target=None)
        ]
        booting = ("create/create_vm", "create/boot", "create/wait_for_agent")
        seconds = [action["seconds"] for action in self._findings.actions if action["action"] in booting]
        self._findings.boot_seconds = round(sum(seconds), 3)


def _ssh_key() -> str:
    public = Ed25519PrivateKey.generate().public_key()
    encoded = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{encoded.decode()} quickstart"


def _show(console: Console, findings: Findings) -> None:
    trail = Table(title="Audit trail")
    trail.add_column("action")
    trail.add_column("outcome")
    trail.add_column("seconds", justify="right")
    for action in findings.actions:
        trail.add_row(action["action"], action["outcome"] or "in flight", f"{action['seconds']:.3f}")
    console.print(trail)
    proofs = {
        "XenServer says that the guest runs": findings.power_state == "running",
        "etc/shadow opens with the new password": findings.password_verified,
        "etc/shadow does not open with the old one": findings.old_password_rejected,
        "authorized_keys holds the SSH key": findings.ssh_key_verified,
        "both files have their content, mode and owner": findings.file_verified,
    }
    for claim, holds in proofs.items():
        console.print(f"[green]✓[/green] {claim}" if holds else f"[red]✗[/red] {claim}: not proven")
    if findings.error:
        console.print(f"[red]✗[/red] {findings.error}", highlight=False)
    console.print(f"Password reset in {findings.password_seconds} s, over the {findings.protocol or 'no'} protocol.")


def _show_what_is_left(console: Console, settings: Path, simulator: SimulatorProcess, state: Path) -> None:
    xenward = f"{VIRTUAL_ENVIRONMENT / 'bin' / 'xenward'} --config-file {settings}"
    console.print("\nThe simulated XenServer goes on. Try:", highlight=False)
    for command in (
        "server list",
        f"server show {NAME}",
        f"server password set {NAME} --generate",
        f"server file put {NAME} /etc/hostname /etc/from-outside --mode 0644",
        f"server reboot {NAME}",
        f"server actions {NAME}",
    ):
        console.print(f"  {xenward} {command}", soft_wrap=True, highlight=False)
    console.print(f"End it with:\n  kill {simulator.pid}; rm -r {state}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
