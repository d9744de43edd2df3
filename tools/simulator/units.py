"""Repositories of the type iscsi: the logical units of a target as disks, and the secrets that open it.

Source: drivers/RawISCSISR.py, BaseISCSI.py and LUNperVDI.py of xapi's storage manager; xapi_pbd.ml, xapi_secret.ml.
"""

from __future__ import annotations

from .errors import ApiError
from .state import State

_SUFFIX = "password_secret"
"""Keys of PBD.device_config that end so hold the uuid of a secret."""

_LOGIN_FAILED = 68
"""ISCSILogin in XE_SR_ERRORCODES.xml."""


def describe(state: State, sr: str) -> None:
    """Number the units of a target, and hide those that are new: nobody sees one before VDI.introduce."""
    database = state.database
    if database.get("SR", sr, "type") != "iscsi":
        return
    names = state.disks.names(database.get("SR", sr, "uuid"))
    for vdi in database.get("SR", sr, "VDIs"):
        record = database.record("VDI", vdi)
        if "LUNid" in record["sm_config"]:
            continue
        number = names.index(record["location"])
        serial = record["location"].replace("-", "")
        config = {"LUNid": str(number), "SCSIid": f"3{serial}", "backend-kind": "vbd"}
        database.set("VDI", vdi, sm_config=config, managed=False)


def assert_secrets(state: State, device_config: dict[str, str]) -> None:
    """ApiError when a secret that opens the target is not there."""
    for key, uuid in device_config.items():
        if key.endswith(_SUFFIX) and not state.database.find("secret", "uuid", uuid):
            raise ApiError(f"SR_BACKEND_FAILURE_{_LOGIN_FAILED}", "", "ISCSI login failed, verify CHAP credentials", "")


def destroy_secrets(state: State, device_config: dict[str, str]) -> None:
    """Destroy the secrets of a PBD that is gone."""
    for key, uuid in device_config.items():
        if key.endswith(_SUFFIX):
            for secret in state.database.find("secret", "uuid", uuid):
                state.database.destroy("secret", secret)
