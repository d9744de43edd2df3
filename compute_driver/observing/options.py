"""The configuration of what an operator sees. Registered by config.py; the groups are [logging] and [endpoint]."""

from __future__ import annotations

from oslo_config import cfg

from .logs import FORMATS, LEVELS

ADDRESS = "127.0.0.1"
PORT = 9787

_MEANINGS = ("more, from xenward itself", "what is done", "what may need somebody", "what went wrong")

OPTIONS: dict[str, list[cfg.Opt]] = {
    "logging": [
        cfg.StrOpt(
            "format",
            default="text",
            choices=list(zip(FORMATS, ("a line for people", "a JSON object in one line"))),
            help="What each record on standard error is.",
        ),
        cfg.StrOpt(
            "level",
            default="info",
            choices=list(zip(LEVELS, _MEANINGS)),
            help="The least important records that are logged.",
        ),
    ],
    "endpoint": [
        cfg.IPOpt(
            "address",
            default=ADDRESS,
            help="IPv4 or IPv6 address at which /metrics, /healthz and /readyz are served. There is no login and no "
            "encryption: whoever reaches an address other than a loopback one reads them.",
        ),
        cfg.IntOpt(
            "port", default=PORT, min=-1, max=65535, help="TCP port of these; 0 for any that is free, -1 to serve none."
        ),
    ],
}
