"""Configuration, read with oslo.config: a file, no secrets on the command line.

Looked for in this order: what `--config-file` names, what the variable XENWARD_CONFIG_FILE names,
`/etc/xenward/xenward.conf`. Without any, everything runs embedded: an in-process bus and SQLite below `state_path`.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from oslo_config import cfg

from .bus import OPTIONS as BUS
from .observing.options import OPTIONS as OBSERVING

DEFAULT_FILE = Path("/etc/xenward/xenward.conf")

_DEFAULT_OPTIONS = [
    cfg.HostnameOpt(
        "host",
        default=socket.gethostname(),
        sample_default="<the machine's name>",
        help="Name of the compute host that is served or asked.",
    ),
    cfg.StrOpt(
        "state_path",
        sample_default="/var/lib/xenward",
        help="Directory for locks and the default database. Default: /var/lib/xenward for root, "
        "otherwise xenward in the user's data directory.",
    ),
    cfg.StrOpt(
        "concurrency_backend",
        default="threading",
        choices=["threading", "eventlet"],
        help="How the service's process runs many requests together.",
    ),
]

_GROUPS = {
    "database": [
        cfg.StrOpt("connection", secret=True, help="SQLAlchemy URL. Default: SQLite in state_path."),
    ],
    "xenserver": [
        cfg.StrOpt(
            "url",
            default="https://localhost",
            help="XenServer's address, https://; several members of its pool with commas between them.",
        ),
        cfg.StrOpt("ca_file", help="PEM file of the authorities that signed its certificate. Default: the system's."),
        cfg.ListOpt(
            "fingerprint",
            default=[],
            help="SHA-256 of its certificate, of each member's with commas between them. Nothing else is checked then.",
        ),
        cfg.BoolOpt(
            "allow_plain_http", default=False, help="Send its password over http:// to other machines than this one."
        ),
        cfg.StrOpt("username", default="root", help="XenServer user."),
        cfg.StrOpt("password", default="", secret=True, help="XenServer password."),
        cfg.FloatOpt("timeout", default=60.0, min=1.0, help="Seconds for a call that XenServer answers at once."),
        cfg.StrOpt("sr", help="Name or uuid of the storage repository for disks. Default: the pool's default one."),
        cfg.BoolOpt(
            "allow_unlocked",
            default=False,
            help="Attach interfaces that should be locked to their addresses where the licence has no locks, too.",
        ),
    ],
    "service": [
        cfg.FloatOpt("lease", default=15.0, min=0.5, help="Seconds after which another service may take the host."),
        cfg.FloatOpt("reconcile_interval", default=60.0, min=0.1, help="Seconds between two looks at all guests."),
        cfg.FloatOpt("heartbeat", default=10.0, min=0.1, help="Seconds between two signs of life in the database."),
        cfg.FloatOpt("drain_timeout", default=60.0, min=0.0, help="Seconds that a stop waits for orders it has begun."),
        cfg.FloatOpt("recording_patience", default=60.0, min=0.0, help="Seconds that an outcome waits for a database."),
        cfg.IntOpt("keep_actions", default=90, min=0, help="Days that the audit trail is kept. 0: for ever."),
    ],
    "agent": [
        cfg.StrOpt(
            "protocol",
            default="prefer-sealed",
            choices=["sealed", "prefer-sealed", "legacy"],
            help="How agents are spoken to; prefer-sealed speaks the old protocol with those that know no other.",
        ),
        cfg.FloatOpt("timeout", default=30.0, min=0.1, help="Seconds that a guest's agent has for one operation."),
        cfg.FloatOpt("boot_timeout", default=300.0, min=1.0, help="Seconds from a guest's start to its agent."),
    ],
    "images": [
        cfg.StrOpt("service", default="directory", help="Where images come from: `directory`, or what is installed."),
        cfg.StrOpt("directory", help="The directory of images. Default: images in state_path."),
        cfg.StrOpt("files_below", help="Directory that files which descriptions name must be in. Default: directory."),
        cfg.StrOpt("ca_file", help="PEM file of authorities for image servers. Default: the system's own."),
        cfg.FloatOpt("timeout", default=60.0, min=1.0, help="Seconds that an image server has for each piece."),
        cfg.IntOpt("max_size_gb", default=1024, min=1, help="GiB that an image from a server may have."),
        cfg.BoolOpt("loopback_http", default=False, help="Take images from this machine's addresses over http:// too."),
        cfg.FloatOpt("stall_timeout", default=300.0, min=1.0, help="Seconds without progress that end a transfer."),
        cfg.FloatOpt("import_stale_after", default=900.0, min=300.0, help="Seconds until a silent import is dead."),
        cfg.FloatOpt("evict_after", default=7 * 86400.0, min=7200.0, help="Seconds that unused images stay cached."),
    ],
    **OBSERVING,
    "bus": BUS,
}


def load(config_file: str | None = None) -> Any:
    """The process's configuration. It is oslo.config's global object: oslo.messaging's RPC works with no other.

    Raises cfg.Error (its text names the option, never a secret value) when a file is missing or wrong.
    """
    conf = cfg.CONF
    conf.register_opts(_DEFAULT_OPTIONS)
    for group, options in _GROUPS.items():
        conf.register_opts(options, group=group)
    named = config_file or os.environ.get("XENWARD_CONFIG_FILE")
    files = [named] if named else [str(DEFAULT_FILE)] if DEFAULT_FILE.exists() else []
    conf(args=[], project="xenward", default_config_files=files)
    return conf


def list_opts() -> list[tuple[str | None, list[cfg.Opt]]]:
    """All options of ours by their groups, None for DEFAULT. oslo-config-generator calls it, as an entry point."""
    return [(None, list(_DEFAULT_OPTIONS)), *((group, list(options)) for group, options in _GROUPS.items())]


def state_path(conf: Any) -> Path:
    """The state directory, made with mode 0700 when it is missing."""
    path = Path(conf.state_path) if conf.state_path else _default_state_path()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _default_state_path() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/xenward")
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "xenward"


def database_url(conf: Any) -> str:
    """The SQLAlchemy URL of the database."""
    return conf.database.connection or f"sqlite:///{state_path(conf) / 'xenward.sqlite'}"
