"""Volumes and interfaces as options and files describe them; passwords for CHAP, which show nowhere."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_protocol.outcomes import Refused
from compute_driver.cli import describing
from compute_driver.network import Interface
from compute_driver.volumes import Volume

from .service import SECRET, Service, run, shown, types

VDI = "1b1c5e6a-0000-4000-8000-000000000001"
SR = "1b1c5e6a-0000-4000-8000-000000000002"
IQN = "iqn.2026-01.example:disk"
INTERFACE = {"id": "port-1", "mac": "02:00:00:00:00:01", "network": {"bridge": "xenbr0"}}


def add_volume(*options: str) -> int:
    return run("server", "add", "volume", "web", *options, "-f", "json")


def add_network(*options: str) -> int:
    return run("server", "add", "network", "web", *options, "-f", "json")


# Volumes


@pytest.mark.parametrize(
    ("options", "kind", "connection"),
    [
        (f"--kind vdi --vdi {VDI}", "vdi", {"uuid": VDI}),
        (
            f"--kind iscsi --host 192.0.2.9 --iqn {IQN} --lun 0",
            "iscsi",
            {"host": "192.0.2.9", "port": 3260, "iqn": IQN, "lun": 0, "chap_user": None},
        ),
        (
            f"--kind iscsi --host san --iqn {IQN} --lun 3 --port 3261",
            "iscsi",
            {"host": "san", "port": 3261, "iqn": IQN, "lun": 3, "chap_user": None},
        ),
        (
            f"--kind nfs --host nas --path /export --sr {SR} --vdi {VDI} --nfs-version 4.1",
            "nfs",
            {"host": "nas", "path": "/export", "sr": SR, "vdi": VDI, "version": "4.1"},
        ),
    ],
)
def test_options_describe_a_volume(
    service: Service, capsys: pytest.CaptureFixture[str], options: str, kind: str, connection: dict[str, Any]
) -> None:
    service.answer = "xvdb"
    assert add_volume("data", *options.split(), "--device", "xvdb", "--read-only") == 0
    ((method, arguments),) = service.calls
    assert (method, arguments["target"]) == ("attach_volume", "web")
    assert arguments["volume"] == {
        "id": "data",
        "kind": kind,
        "connection": connection,
        "device": "xvdb",
        "read_only": True,
        "boot_index": None,
    }
    assert Volume.from_dict(arguments["volume"]).id == "data"
    told = shown(capsys)
    assert (told["volume"], told["device"], told["outcome"]) == ("data", "xvdb", "succeeded")


def test_a_file_describes_a_volume(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = json.dumps({"id": "data", "kind": "vdi", "connection": {"uuid": VDI}})
    (tmp_path / "volume").write_text(text)
    types(monkeypatch, text)
    assert add_volume("--description", str(tmp_path / "volume")) == add_volume("--description", "-") == 0
    assert service.calls[0] == service.calls[1]
    assert service.calls[0][1]["volume"]["connection"] == {"uuid": VDI}
    capsys.readouterr()
    assert add_volume("--description", str(tmp_path / "volume"), "--no-wait") == 0
    assert shown(capsys)["volume"] == "data"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "--kind"),
        ("data", "--kind"),
        (f"--kind vdi --vdi {VDI}", "its id"),
        ("data --kind vdi", "--vdi"),
        ("data --kind vdi --vdi not-a-uuid", "uuid"),
        (f"data --kind iscsi --host san --iqn {IQN}", "--lun"),
        (f"data --kind vdi --vdi {VDI} --host san", "members"),
        (f"data --kind vdi --vdi {VDI} --device sda", "device"),
        (f"data --kind iscsi --host san --iqn {IQN} --lun 0 --chap-password-file x", "--chap-user"),
        ("data --description /dev/null", "--description"),
        ("--lun 0 --description /dev/null", "--description"),
        ("--read-only --description /dev/null", "--description"),
    ],
)
def test_what_is_no_volume_is_refused_before_the_service_is_asked(
    service: Service, capsys: pytest.CaptureFixture[str], options: str, words: str
) -> None:
    assert add_volume(*options.split()) == 3
    told = shown(capsys)
    assert (told["outcome"], told["code"]) == ("refused", "bad_volume")
    assert words in told["message"]
    assert service.calls == []


@pytest.mark.parametrize("content", ["", "{", "[" * 5000, '{"chap_password": "hunter2', "\xff"])
def test_files_that_are_no_json(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "file").write_bytes(content.encode("latin-1"))
    assert add_volume("--description", str(tmp_path / "file")) == 3
    told = capsys.readouterr().out
    assert json.loads(told)["code"] == "bad_json"
    assert "hunter2" not in told
    assert service.calls == []


CHAP = ("data", "--kind", "iscsi", "--host", "san", "--iqn", IQN, "--lun", "0", "--chap-user", "ada")


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


def test_a_chap_password_comes_from_a_file_or_standard_input(
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    everything_logged: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "secret").write_text(SECRET + "\nmore\n")
    described = {"id": "data", "kind": "iscsi", "connection": {"host": "san", "iqn": IQN, "lun": 0, "chap_user": "ada"}}
    described["connection"]["chap_password"] = SECRET  # type: ignore[index]
    (tmp_path / "volume").write_text(json.dumps(described))
    types(monkeypatch, SECRET + "\n")
    for options in (
        (*CHAP, "--chap-password-file", str(tmp_path / "secret")),
        (*CHAP, "--chap-password-file", "-"),
        ("--description", str(tmp_path / "volume")),
    ):
        assert run("-v", "-v", "--debug", "server", "add", "volume", "web", *options) == 0
        assert service.calls[-1][1]["volume"]["connection"]["chap_password"] == SECRET
    assert "hunter2" not in "".join(capsys.readouterr()) + everything_logged.text


def test_a_chap_password_is_asked_for_at_a_terminal_only(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    types(monkeypatch, SECRET + "\n")
    assert add_volume(*CHAP) == 3
    assert shown(capsys)["code"] == "no_password"
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: SECRET if prompt == "CHAP password: " else "")
    assert add_volume(*CHAP) == 0
    assert service.calls[0][1]["volume"]["connection"]["chap_password"] == SECRET
    assert "hunter2" not in "".join(capsys.readouterr())


def test_a_chap_password_does_not_lie_on_the_bus(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    types(monkeypatch, SECRET + "\n")
    assert add_volume(*CHAP, "--chap-password-file", "-", "--no-wait") == 3
    told = capsys.readouterr().out
    assert json.loads(told)["code"] == "secret_needs_waiting"
    assert "hunter2" not in told
    assert service.calls == []


# Interfaces


def test_options_describe_an_interface(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    options = "--id port-1 --mac 02:00:00:00:00:01 --bridge xenbr0 --vlan 7 --mtu 1400 --address 192.0.2.5/24"
    options += " --address 2001:db8::5/64 --gateway 192.0.2.1 --gateway fe80::1 --route 10.0.0.0/8=192.0.2.2"
    options += " --dns 192.0.2.53 --search example.org --locked --allowed-address 192.0.2.6 --dhcp6"
    assert add_network(*options.split()) == 0
    ((method, arguments),) = service.calls
    assert (method, arguments["target"]) == ("attach_interface", "web")
    assert arguments["interface"] == {
        **INTERFACE,
        "vlan": 7,
        "mtu": 1400,
        "addresses": ["192.0.2.5/24", "2001:db8::5/64"],
        "gateway4": "192.0.2.1",
        "gateway6": "fe80::1",
        "routes": [{"to": "10.0.0.0/8", "via": "192.0.2.2"}],
        "dns": ["192.0.2.53"],
        "search": ["example.org"],
        "dhcp4": False,
        "dhcp6": True,
        "locked": True,
        "allowed_addresses": ["192.0.2.6"],
    }
    told = shown(capsys)
    assert (told["interface"], told["mac"]) == ("port-1", "02:00:00:00:00:01")


@pytest.mark.parametrize(
    ("name", "network"),
    [
        (VDI, {"uuid": VDI}),
        ("Pool-wide network", {"name_label": "Pool-wide network"}),
        ("x" * 36, {"name_label": "x" * 36}),
    ],
)
def test_a_network_is_named_by_uuid_or_name(service: Service, name: str, network: dict[str, str]) -> None:
    assert add_network("--network", name, "--dhcp4") == 0
    interface = service.calls[0][1]["interface"]
    assert (interface["network"], interface["dhcp4"]) == (network, True)


def test_what_is_made_up_follows_from_the_order(service: Service, tmp_path: Path) -> None:
    (tmp_path / "it").write_text(json.dumps({"network": {"bridge": "xenbr0"}}))
    for order in ("one", "one", "another"):
        assert add_network("--description", str(tmp_path / "it"), "--order-id", order) == 0
    assert add_network("--bridge", "xenbr0") == add_network("--bridge", "xenbr0") == 0
    first, again, *others = [call[1]["interface"] for call in service.calls]
    assert first == again
    made = [first, *others]
    assert len({it["id"] for it in made}) == len({it["mac"] for it in made}) == 4
    # Locally administered, and no multicast.
    assert all(int(it["mac"][:2], 16) & 3 == 2 for it in made)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "--network"),
        ("--bridge xenbr0 --gateway here", "--gateway"),
        ("--bridge xenbr0 --address 192.0.2.5/24 --gateway 192.0.2.1 --gateway 192.0.2.2", "each family"),
        ("--bridge xenbr0 --gateway 192.0.2.1", "does not reach"),
        ("--bridge xenbr0 --route 10.0.0.0/8", "NETWORK=GATEWAY"),
        ("--bridge xenbr0 --mac nonsense", "MAC"),
        ("--bridge xenbr0 --id a/b", "id of a port"),
        ("--dhcp4 --description /dev/null", "--description"),
    ],
)
def test_what_is_no_interface_is_refused_before_the_service_is_asked(
    service: Service, capsys: pytest.CaptureFixture[str], options: str, words: str
) -> None:
    assert add_network(*options.split()) == 3
    told = shown(capsys)
    assert (told["outcome"], told["code"]) == ("refused", "bad_interface")
    assert words in told["message"]
    assert service.calls == []


def test_a_guest_is_given_the_interfaces_of_a_file(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list").write_text(json.dumps([{**INTERFACE, "dhcp4": True}]))
    apply = ("server", "network", "apply", "web", "--interfaces", str(tmp_path / "list"), "-f", "json")
    assert run(*apply) == 0
    ((method, arguments),) = service.calls
    assert (method, len(arguments["interfaces"])) == ("inject_network_info", 1)
    assert INTERFACE.items() <= arguments["interfaces"][0].items()
    # These are interfaces that it has: nothing is made up.
    capsys.readouterr()
    (tmp_path / "list").write_text(json.dumps([{"network": {"bridge": "xenbr0"}}]))
    assert run(*apply) == 3
    assert shown(capsys)["code"] == "bad_interface"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "mac", "network", "kind", "connection", "bridge"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_described_or_refused(tmp_path_factory: pytest.TempPathFactory, untrusted: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(untrusted))
    for read in (
        lambda: [describing.described_volume(str(path))],
        lambda: [Interface.from_dict(it) for it in describing.known_interfaces(str(path))],
        lambda: [Interface.from_dict(it) for it in describing.new_interfaces(str(path), "order")],
    ):
        try:
            assert all(isinstance(it, (Volume, Interface)) for it in read())
        except Refused as error:
            assert error.code in ("bad_volume", "bad_interface", "bad_password")
