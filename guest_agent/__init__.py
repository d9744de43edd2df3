"""The agent that runs inside a guest and carries out what its host asks for through XenStore."""

from __future__ import annotations

VERSION = "0.1.0"
"""The agent's version, as it stands in the advert and in the reply to `version`. The distribution has the same."""
