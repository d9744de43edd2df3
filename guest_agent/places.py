"""Where the agent keeps what is its own in a guest whose files lie below one root. Nothing is loaded with it, so that
every part can name it."""

from __future__ import annotations

from .system.paths import GuestPath

CONFIGURATION_FILE = GuestPath("/etc/xenward/agent.conf")
"""See configuration.py."""

STATE_DIRECTORY = GuestPath("/var/lib/xenward")
"""What must outlast a boot; the superuser's alone."""

RUN_DIRECTORY = GuestPath("/run/xenward")
"""What must not."""

IDENTITY_FILE = GuestPath(f"{STATE_DIRECTORY.text}/identity.json")
"""See identity.py. It stays when the agent is uninstalled: hosts know the guest by it."""
