"""What can be a volume, that nothing else can, and that its password shows nowhere."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.messages import Password
from agent_protocol.outcomes import Refused
from compute_driver.volumes import IscsiConnection, NfsConnection, VdiConnection, Volume

UUID = "00000000-0000-4000-8000-00000000beef"
CHAP = "hunter2-Chap"
ISCSI: dict[str, Any] = {
    "host": "san.example",
    "port": 3261,
    "iqn": "iqn.2004-10.example:vol",
    "lun": 3,
    "chap_user": "ada",
    "chap_password": CHAP,
}
NFS: dict[str, Any] = {"host": "2001:db8::5", "path": "/volumes/a", "sr": UUID, "vdi": UUID, "version": "4.1"}
CONNECTIONS: dict[str, dict[str, Any]] = {"vdi": {"uuid": UUID}, "iscsi": ISCSI, "nfs": NFS}


def data(kind: str, **changes: Any) -> dict[str, Any]:
    return {"id": "vol-1", "kind": kind, "connection": {**CONNECTIONS[kind], **changes}}


def test_all_members_are_read() -> None:
    more = {"device": "xvdb", "read_only": True, "boot_index": 0}
    iscsi = IscsiConnection("san.example", "iqn.2004-10.example:vol", 3, 3261, "ada", Password(CHAP))
    assert Volume.from_dict({**data("iscsi"), **more}) == Volume("vol-1", iscsi, "xvdb", True, 0)
    assert Volume.from_dict(data("vdi")) == Volume("vol-1", VdiConnection(UUID))
    assert Volume.from_dict(data("nfs")).connection == NfsConnection("2001:db8::5", "/volumes/a", UUID, UUID, "4.1")
    assert Volume.from_dict({**data("vdi"), "boot_index": 0}).is_bootable
    assert not Volume.from_dict({**data("vdi"), "boot_index": 1}).is_bootable


@pytest.mark.parametrize("kind", sorted(CONNECTIONS))
def test_plain_data_and_back(kind: str) -> None:
    volume = Volume.from_dict(data(kind))
    assert volume.kind == kind
    assert Volume.from_dict(volume.to_dict(secrets=True)) == volume


def test_the_password_shows_nowhere() -> None:
    volume = Volume.from_dict(data("iscsi"))
    assert CHAP not in repr(volume) + str(volume) + str(volume.to_dict())
    assert volume.to_dict(secrets=True)["connection"]["chap_password"] == CHAP
    for wrong in ({"chap_user": None}, {"chap_user": "a b"}, {"lun": "x"}, {"chap_password": CHAP + "\n"}):
        with pytest.raises(Refused) as caught:
            Volume.from_dict(data("iscsi", **wrong))
        assert CHAP not in repr(caught.value) + str(caught.value.__context__)


@pytest.mark.parametrize(
    "kind, changes",
    [
        ("vdi", {"uuid": "beef"}),
        ("vdi", {"uuid": UUID.upper()}),
        ("vdi", {"size": 1}),
        ("iscsi", {"host": ""}),
        ("iscsi", {"host": "a,b"}),
        ("iscsi", {"host": "-o"}),
        ("iscsi", {"port": 0}),
        ("iscsi", {"port": 65536}),
        ("iscsi", {"port": "3260"}),
        ("iscsi", {"iqn": "vol"}),
        ("iscsi", {"iqn": "iqn.2004-10.example:" + "v" * 204}),
        ("iscsi", {"iqn": "iqn.2004-10.example:a/../b"}),
        ("iscsi", {"lun": -1}),
        ("iscsi", {"lun": 16384}),
        ("iscsi", {"lun": True}),
        ("iscsi", {"chap_user": None}),
        ("iscsi", {"chap_password": None}),
        ("nfs", {"path": "volumes"}),
        ("nfs", {"path": "/a/../b"}),
        ("nfs", {"path": "/a b"}),
        ("nfs", {"path": "/" + "a" * 1024}),
        ("nfs", {"sr": "x"}),
        ("nfs", {"vdi": None}),
        ("nfs", {"version": "2"}),
        ("nfs", {"options": "exec"}),
    ],
)
def test_connections_that_cannot_be(kind: str, changes: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        Volume.from_dict(data(kind, **changes))
    assert caught.value.code == "bad_volume"


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"id": "a/b"},
        {"kind": "rbd"},
        {"kind": None},
        {"connection": None},
        {"device": "sda"},
        {"device": "xvdb\n"},
        {"read_only": "no"},
        {"boot_index": -1},
        {"boot_index": True},
        {"size": 1},
    ],
)
def test_volumes_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        Volume.from_dict({**data("vdi"), **changes})
    assert caught.value.code == "bad_volume"


@given(
    st.sampled_from(sorted(CONNECTIONS)),
    st.dictionaries(
        st.sampled_from([*ISCSI, *NFS, "uuid"]), st.none() | st.integers() | st.text(max_size=5), max_size=4
    ),
)
def test_anything_at_all_is_read_or_refused(kind: str, changes: dict[str, Any]) -> None:
    try:
        assert Volume.from_dict(data(kind, **changes)).kind == kind
    except Refused as error:
        assert error.code in ("bad_volume", "bad_password")
