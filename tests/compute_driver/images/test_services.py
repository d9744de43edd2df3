"""Image services are found by name."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest

from agent_protocol.outcomes import Refused
from compute_driver.images import services as image_services
from compute_driver.images.directory import ImageDirectory
from compute_driver.images.services import load_service


def test_the_directory_is_built_in(tmp_path: Any) -> None:
    group = {"directory": str(tmp_path / "i"), "files_below": None, "ca_file": None, "timeout": 5.0}
    conf = SimpleNamespace(images=SimpleNamespace(**group, max_size_gb=1, loopback_http=False))
    assert isinstance(load_service("directory", conf), ImageDirectory)


def test_others_are_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*, group: str, name: str) -> list[EntryPoint]:
        entry = EntryPoint("mine", f"{__name__}:make", image_services.ENTRY_POINTS)
        return [entry] if (group, name) == (entry.group, entry.name) else []

    monkeypatch.setattr(image_services, "entry_points", found)
    assert load_service("mine", 7) == ("made", 7)  # type: ignore[comparison-overlap]
    with pytest.raises(Refused) as caught:
        load_service("yours", 7)
    assert caught.value.code == "image_service_unknown"


def make(conf: Any) -> Any:
    return "made", conf
