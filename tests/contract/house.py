"""A whole xenward for a test: a simulated XenServer, a configuration, and the command `xenward` as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import XenAPI

from agent_protocol.xenstore import Client, connect
from tools.commands import proof
from tools.simulator.process import SimulatorProcess

CHECKOUT = Path(__file__).resolve().parents[2]
STANDIN = Path(__file__).with_name("standin_agent.py")

SECONDS = 240
"""How long any one command may take before the test gives up on it."""


@dataclass
class Done:
    """How a command ended. `shown`: what it printed as JSON, None when it printed nothing."""

    status: int
    shown: Any
    stderr: str


@dataclass
class House:
    """Where everything is, and how to ask for things."""

    directory: Path
    simulator: SimulatorProcess
    settings: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        return self.directory / "xenward.conf"

    def configure(self, **groups: dict[str, str]) -> None:
        """Write the configuration, with these changes to it. `default` stands for [DEFAULT]."""
        settings = {
            "default": {"host": "house", "state_path": str(self.directory)},
            "xenserver": {
                "url": self.simulator.url,
                "username": self.simulator.username,
                "password": self.simulator.password,
            },
            "agent": {"timeout": "20", "boot_timeout": "30"},
            **self.settings,
        }
        for group, values in groups.items():
            settings[group] = {**settings.get(group, {}), **values}
        self.settings = settings
        lines = []
        for group, values in settings.items():
            lines += [f"[{'DEFAULT' if group == 'default' else group}]", *(f"{k} = {v}" for k, v in values.items()), ""]
        self.conf.touch(mode=0o600)
        self.conf.write_text("\n".join(lines))

    def start(self, *arguments: str, stdin: str | None = None) -> subprocess.Popen[str]:
        """Start `xenward …` and let it run."""
        process = subprocess.Popen(
            [sys.executable, "-m", "compute_driver.cli", "--config-file", str(self.conf), *arguments],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(stdin or "")
        process.stdin.close()
        process.stdin = None
        return process

    def end(self, process: subprocess.Popen[str]) -> Done:
        """Wait for a started command."""
        output, errors = process.communicate(timeout=SECONDS)
        return Done(process.returncode, json.loads(output) if output.strip() else None, errors)

    def xenward(self, *arguments: str, stdin: str | None = None) -> Done:
        """Run `xenward … -f json`."""
        return self.end(self.start(*arguments, "-f", "json", stdin=stdin))

    def create(self, name: str = "web", *options: str) -> str:
        """Create an instance, with the password that the test chose; its uuid."""
        done = self.xenward("server", "create", name, "--password-stdin", *options, stdin=FIRST_PASSWORD + "\n")
        assert done.status == 0, (done.shown, done.stderr)
        return str(done.shown["uuid"])

    def set_password(self, password: str, name: str = "web") -> Done:
        return self.xenward("server", "password", "set", name, "--password-stdin", stdin=password + "\n")

    def actions(self, name: str = "web") -> list[dict[str, Any]]:
        """The audit trail, oldest first."""
        return list(self.xenward("server", "actions", name).shown)

    def last_action(self, name: str = "web") -> tuple[str, str, str]:
        """Action, outcome and code of the newest row that is no step."""
        row = [row for row in self.actions(name) if not row["step"]][-1]
        return row["action"], row["outcome"], row["code"]

    @contextmanager
    def session(self) -> Iterator[Any]:
        """XenServer itself, through the official SDK."""
        session = XenAPI.Session(self.simulator.url)
        session.login_with_password(self.simulator.username, self.simulator.password)
        yield session.xenapi
        session.xenapi.session.logout()

    def vm(self, instance: str) -> dict[str, Any]:
        with self.session() as xenapi:
            (ref,) = xenapi.VM.get_by_name_label(f"instance-{instance}")
            return {**xenapi.VM.get_record(ref), "ref": ref}

    def guest(self, instance: str) -> Path:
        """The root directory of the guest."""
        return self.simulator.guest_root(self.vm(instance)["uuid"])

    def agent_pid(self, instance: str) -> int:
        return self.simulator.agent_pid(self.vm(instance)["uuid"])

    def opens(self, instance: str, password: str) -> bool:
        """Whether the administrator's hash on the guest's disk is one of this password."""
        return proof.password_opens(self.guest(instance), "root", password)

    def store(self) -> Client:
        """XenStore as dom0 sees it."""
        return connect(str(self.simulator.xenstore_socket))

    def await_request(self, instance: str, name: str) -> None:
        """Wait until a request of that command stands in the guest's XenStore."""
        path = f"/local/domain/{self.vm(instance)['domid']}/data/host"
        with self.store() as store:
            store.watch(path, "requests")
            while store.next_event(SECONDS):
                if any(name == json.loads(store.read(f"{path}/{child}"))["name"] for child in _children(store, path)):
                    return
        raise AssertionError(f"no {name} request appeared")


FIRST_PASSWORD = "first Pass-word 1"
SECOND_PASSWORD = "second Pass-word 2"


def _children(store: Client, path: str) -> list[str]:
    from agent_protocol.xenstore import StoreError

    try:
        return store.directory(path)
    except StoreError:
        return []


@contextmanager
def house(directory: Path, *simulator_arguments: str) -> Iterator[House]:
    """A house whose simulated XenServer is ready."""
    with SimulatorProcess(["--login-failure-delay", "0", *simulator_arguments]) as simulator:
        it = House(directory, simulator)
        it.configure()
        yield it


def standin(behaviour: str) -> tuple[str, str]:
    """Options of the simulator that run a stand-in agent in its guests."""
    command = [sys.executable, str(STANDIN), "{socket}", behaviour]
    return "--agent-command", json.dumps(command)


os.environ.setdefault("PYTHONPATH", str(CHECKOUT))
