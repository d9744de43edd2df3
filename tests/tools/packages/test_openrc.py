"""The self-contained agent under a real OpenRC: installed, started by its supervisor, started again, stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_protocol.messages import ADVERT
from agent_protocol.outcomes import Outcome
from tests.guest_agent.sealing import SealedHost
from tools.labs.roots import debian_root
from tools.packages import zipapp

from .guests import STORE, guest, placed

pytestmark = pytest.mark.services


_STATE = ("daemons", "exclusive", "failed", "inactive", "options", "started", "starting", "stopping", "tmp")
"""The directories that its init makes at boot."""


def test_under_its_supervisor(tmp_path: Path) -> None:
    archive = zipapp.build(tmp_path, [11])
    with guest(debian_root(("iproute2", "openrc", "procps", "python3")), archive) as (root, host):
        root.run([*placed([archive]), "--install"])
        root.path("/etc/conf.d").mkdir(exist_ok=True)
        root.path("/etc/conf.d/xenward-agent").write_text(
            f'xenward_agent_options="--store unix:{STORE}/{host.guest_socket.name}"\n'
        )
        # As if this OpenRC had started the system. Debian's has none of the services that Alpine's orders by.
        root.run(["mkdir", "-p", *(f"/run/openrc/{name}" for name in _STATE)])
        root.run(["touch", "/run/openrc/softlevel"])
        root.run(["rc-service", "--nodeps", "xenward-agent", "start"])
        first = SealedHost(host)
        assert first.ask("ping").outcome == Outcome.SUCCEEDED
        # The supervisor brings it back, as the same guest.
        root.run(["pkill", "-9", "-f", "guest_agent/launch.py --store"])
        last = host.read(ADVERT)
        host.wait(lambda: host.read(ADVERT) not in (None, last), "another advert")
        second = SealedHost(host)
        assert second.ask("ping").outcome == Outcome.SUCCEEDED
        assert second.identity == first.identity
        # It does not come back: it waits until an init has taken note of the supervisor's end, and here is none.
        root.run(["timeout", "10", "rc-service", "--nodeps", "xenward-agent", "stop"], check=False)
        assert root.run(["pgrep", "-f", "launch.py"], check=False).returncode == 1
        assert root.path("/run/xenward").stat().st_mode & 0o777 == 0o700
