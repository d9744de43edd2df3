"""What the pool's storage manager can do with each type of repository, as its drivers tell xapi (the class SM).

Source of the names: drivers/*SR.py (CAPABILITIES) of xapi's storage manager.
"""

from __future__ import annotations

from .database import Database
from .vdis import DRIVERS

_API_VERSION = "1.0"
_MAKER = "Citrix Systems Inc"

_VHD = {
    "SR_ATTACH": 1,
    "SR_DETACH": 1,
    "SR_SCAN": 1,
    "SR_UPDATE": 1,
    "VDI_ATTACH": 2,
    "VDI_CLONE": 1,
    "VDI_CREATE": 1,
    "VDI_DELETE": 1,
    "VDI_DETACH": 1,
    "VDI_INTRODUCE": 1,
    "VDI_MIRROR": 1,
    "VDI_RESIZE": 1,
    "VDI_SNAPSHOT": 1,
    "VDI_UPDATE": 1,
}
"""Of repositories that keep VHD files. None of them resizes a disk that is attached."""

_UNITS = {name: _VHD[name] for name in ("SR_ATTACH", "SR_DETACH", "SR_SCAN", "VDI_ATTACH", "VDI_DETACH")}
"""Of those whose disks are somebody else's."""


def record(database: Database) -> None:
    """Enter the drivers into the database, one for each type."""
    for kind in DRIVERS:
        features = {**_UNITS, "VDI_INTRODUCE": 1} if kind == "iscsi" else _VHD
        database.create(
            "SM",
            type=kind,
            name_label=kind,
            name_description=f"Simulated driver for repositories of type {kind}",
            vendor=_MAKER,
            version=_API_VERSION,
            required_api_version=_API_VERSION,
            capabilities=sorted(features),
            features=features,
            driver_filename=f"/opt/xensource/sm/{kind.upper()}SR",
            supported_image_formats=[] if kind == "iscsi" else ["vhd", "raw"],
        )
