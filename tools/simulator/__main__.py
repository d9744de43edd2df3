"""The command `xenward-simulator`: a simulated XenServer on 127.0.0.1.

When it is ready it prints one line of JSON with all that a client needs, and nothing more after that.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, get_args

from . import state_directory
from .server import Simulator
from .settings import AGENT_COMMAND, MAX_GUESTS, MAX_HOSTS, HypervisorKind, Settings, XenStore
from .tasks import COMPLETED_TIMEOUT


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="xenward-simulator",
        description="A simulated XenServer on 127.0.0.1.",
        # Abbreviated, `--password SECRET` would be taken as --password-file and repeat the secret in its error.
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=int, default=0, help="TCP port of 127.0.0.1 (default: any that is free)")
    parser.add_argument("--tls", action="store_true", help="serve HTTPS there, and plain HTTP at another port")
    parser.add_argument(
        "--state",
        type=Path,
        help="directory that keeps the pool, its guests and disks, for the next start; also for sockets and logs "
        "(default: temporary, removed at the end)",
    )
    parser.add_argument("--username", default="root", help="who may log in (default: root)")
    parser.add_argument(
        "--password-file", type=Path, help="file with the password (default: one is made up and told when ready)"
    )
    parser.add_argument("--host-name", default="simulated-1", help="name of the first host (default: simulated-1)")
    parser.add_argument(
        "--hosts",
        type=int,
        default=1,
        metavar="NUMBER",
        help=f"how many hosts the pool has, each at ports of its own (default: 1; at most {MAX_HOSTS})",
    )
    parser.add_argument(
        "--guests",
        type=int,
        default=0,
        metavar="NUMBER",
        help=f"how many guests run from the start, each with a disk, an interface and an agent (default: 0; at most "
        f"{MAX_GUESTS})",
    )
    parser.add_argument("--plugins", type=Path, help="directory of dom0 plugins (default: plugins below --state)")
    parser.add_argument(
        "--login-failure-delay",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="how late a wrong password is answered (default: 5, as on a real host)",
    )
    parser.add_argument(
        "--completed-task-timeout",
        type=float,
        default=COMPLETED_TIMEOUT,
        metavar="SECONDS",
        help="how long a task is kept when it has ended (default: 3900, as on a real host)",
    )
    agent = parser.add_mutually_exclusive_group()
    agent.add_argument("--no-agent", action="store_true", help="boot guests without any agent")
    agent.add_argument(
        "--agent-command",
        type=_command,
        metavar="JSON",
        help="array of strings: the agent of every guest; {root}, {store} and {socket} are replaced",
    )
    parser.add_argument(
        "--record-xenstore", type=Path, metavar="FILE", help="append every XenStore packet, one JSON line each"
    )
    parser.add_argument(
        "--xenstore",
        choices=get_args(XenStore),
        default="simulated",
        help="the XenStore daemon (default: simulated; the others are Debian's own and are fetched at first use)",
    )
    parser.add_argument(
        "--hypervisor",
        choices=get_args(HypervisorKind),
        default="simulated",
        help="what carries the guests (default: simulated; xen boots real ones in an emulated computer)",
    )
    parser.add_argument("--log-file", type=Path, help="log of the API calls (default: simulator.log below --state)")
    parser.add_argument("--exit-with-stdin", action="store_true", help="end when standard input is closed")
    return parser


def _command(text: str) -> tuple[str, ...]:
    try:
        command = json.loads(text)
    except ValueError:
        command = None
    if not isinstance(command, list) or not command or not all(isinstance(item, str) for item in command):
        raise argparse.ArgumentTypeError("must be a JSON array of strings")
    return tuple(command)


def make_settings(options: argparse.Namespace, state: Path) -> Settings:
    """The settings that the command line means. OSError when the password file cannot be read."""
    optional: dict[str, Any] = {"is_kept": options.state is not None}
    if options.password_file is not None:
        optional["password"] = options.password_file.read_text("utf-8").rstrip("\r\n")
    elif options.state is not None:
        optional["password"] = state_directory.password(state)
    return Settings(
        state=state,
        port=options.port,
        tls=options.tls,
        username=options.username,
        host_name=options.host_name,
        plugins=options.plugins.resolve() if options.plugins else None,
        login_failure_delay=options.login_failure_delay,
        completed_task_timeout=options.completed_task_timeout,
        agent_command=() if options.no_agent else options.agent_command or AGENT_COMMAND,
        record_xenstore=options.record_xenstore,
        xenstore=options.xenstore,
        hypervisor=options.hypervisor,
        hosts=options.hosts,
        guests=options.guests,
        **optional,
    )


def _await_end_of_input(ended: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    ended.set()


def run(options: argparse.Namespace, state: Path) -> None:
    """Serve until SIGTERM, SIGINT or, if asked for, the end of standard input."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    logging.basicConfig(
        filename=options.log_file or state / "simulator.log",
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    settings = make_settings(options, state)
    simulator = Simulator(settings)
    simulator.start()
    try:
        ready = {
            "url": simulator.coordinator.url,
            "plain_url": simulator.coordinator.plain_url,
            "fingerprint": simulator.coordinator.fingerprint,
            "username": settings.username,
            "password": settings.password,
            "xenstore_socket": str(simulator.coordinator.hypervisor.socket),
            "admin_socket": str(simulator.admin_socket),
            "state": str(settings.state),
            "plugins": str(settings.plugin_directory),
            "hosts": [
                {
                    "name": host.name,
                    "uuid": simulator.state.database.get("host", host.ref, "uuid"),
                    "url": host.url,
                    "plain_url": host.plain_url,
                    "fingerprint": host.fingerprint,
                    "xenstore_socket": str(host.hypervisor.socket),
                }
                for host in simulator.hosts
            ],
            "guests": [guest._asdict() for guest in simulator.guests],
        }
        print(json.dumps(ready), flush=True)
        if options.exit_with_stdin:
            threading.Thread(target=_await_end_of_input, args=(ended,), name="stdin", daemon=True).start()
        ended.wait()
    finally:
        simulator.stop()


def main(arguments: list[str] | None = None) -> int:
    """The entry point; gives the exit status."""
    options = build_parser().parse_args(arguments)
    temporary = options.state is None
    state = Path(tempfile.mkdtemp(prefix="xenward-simulator-")) if temporary else options.state.resolve()
    state.mkdir(parents=True, exist_ok=True)
    try:
        run(options, state)
    except (OSError, ValueError) as error:
        print(f"xenward-simulator: {error}", file=sys.stderr)
        return 1
    finally:
        if temporary:
            shutil.rmtree(state, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
