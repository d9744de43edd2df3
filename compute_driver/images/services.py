"""Which image service the configuration names: the built-in directory, or one that is installed as an entry point."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from agent_protocol.outcomes import Refused

from ..config import state_path
from . import ImageService
from .directory import ImageDirectory

ENTRY_POINTS = "xenward.image_services"
"""The group of entry points in which image services are found by name: functions of the process's configuration."""


def load_service(name: str, conf: Any) -> ImageService:
    """The image service of that name. Refused when none is installed under it.

    conf: the process's configuration. The errors of the service's own making pass through.
    """
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        return cast("Callable[[Any], ImageService]", entry.load())(conf)
    if name == "directory":
        return from_configuration(conf)
    raise Refused("image_service_unknown", f"no image service {name!r} is installed")


def from_configuration(conf: Any) -> ImageDirectory:
    """The image service that the configuration's group [images] describes."""
    group = conf.images
    return ImageDirectory(
        Path(group.directory) if group.directory else state_path(conf) / "images",
        files_below=Path(group.files_below) if group.files_below else None,
        ca_file=Path(group.ca_file) if group.ca_file else None,
        timeout=group.timeout,
        max_size=group.max_size_gb * 1024**3,
        loopback_http=group.loopback_http,
    )
