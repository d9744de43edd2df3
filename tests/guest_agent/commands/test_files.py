from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_protocol.outcomes import Refused, Unsuccessful
from guest_agent.commands import COMMANDS, Context

CONTENT = b"caf\xe9,\0 second\n"


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def put(context: Context, **members: object) -> str:
    return COMMANDS["file_put"](context, json.dumps({"path": "/etc/f", "content": b64(CONTENT), **members})).message


def refused(context: Context, **members: object) -> Refused:
    with pytest.raises(Refused) as caught:
        put(context, **members)
    assert not (Path(context.system.root) / "etc/f").exists()
    return caught.value


def test_file_put(context: Context, root: Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest().upper()
    assert put(context, mode="0640", owner="ann:ann", sha256=digest) == ""
    assert (root / "etc/f").read_bytes() == CONTENT
    found = (root / "etc/f").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, os.getuid(), os.getgid())


def test_owner_is_found_in_the_guest(context: Context, root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only the superuser can give files away")
    (root / "etc/passwd").write_text("bob:x:1234:5678::/:\n")
    (root / "etc/group").write_text("crew:x:4321:\n")
    put(context, owner="bob")
    assert ((root / "etc/f").stat().st_uid, (root / "etc/f").stat().st_gid) == (1234, 5678)
    put(context, owner="bob:crew")
    assert ((root / "etc/f").stat().st_uid, (root / "etc/f").stat().st_gid) == (1234, 4321)


def test_defaults(context: Context, root: Path) -> None:
    put(context, content="", mode=None)
    assert (root / "etc/f").read_bytes() == b""
    assert stat.S_IMODE((root / "etc/f").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", ["", "8", "0o644", "77", "00644", "rw-r--r--", 420, "٠٦٤٤"])
def test_bad_modes(context: Context, mode: object) -> None:
    assert refused(context, mode=mode).code == "bad_arguments"


@pytest.mark.parametrize(
    ("owner", "code"),
    [("nobody", "no_such_user"), ("ann:nobody", "no_such_group"), ("ann:", "bad_user_name"), (":ann", "bad_user_name")],
)
def test_bad_owners(context: Context, owner: str, code: str) -> None:
    assert refused(context, owner=owner).code == code


@pytest.mark.parametrize("content", [None, 5, "?", "A", ["QQ=="]])
def test_bad_contents(context: Context, content: object) -> None:
    assert refused(context, content=content).code == "bad_arguments"


def test_checksums(context: Context) -> None:
    assert refused(context, sha256=hashlib.sha256(b"else").hexdigest()).code == "checksum_mismatch"
    assert refused(context, sha256="abc").code == "bad_arguments"


def test_unknown_members_are_refused(context: Context) -> None:
    assert "besides path, content, mode, owner, sha256" in refused(context, backup="yes").message


@pytest.mark.parametrize("value", ["", "[]", "null", '{"path":"/etc/f"}', "[" * 4000])
def test_no_object(context: Context, value: str) -> None:
    with pytest.raises(Refused) as caught:
        COMMANDS["file_put"](context, value)
    assert caught.value.code == "bad_arguments"


def test_injectfile_splits_at_the_first_comma(context: Context, root: Path) -> None:
    value = base64.encodebytes(b"/srv/new," + CONTENT).decode()
    assert COMMANDS["injectfile"](context, value).message == ""
    assert (root / "srv/new").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b64(b"/no/comma"), "bad_arguments"),
        ("%%%", "bad_arguments"),
        (b64(b"relative,x"), "bad_path"),
        (b64(b"/\xff,x"), "bad_path"),
        (b64(b",x"), "bad_path"),
    ],
)
def test_bad_injectfile(context: Context, value: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        COMMANDS["injectfile"](context, value)
    assert caught.value.code == code


def test_file_inject(context: Context, root: Path) -> None:
    value = json.dumps({"b64_path": b64("/srv/a,ü".encode()), "b64_file": b64(CONTENT)})
    assert COMMANDS["file_inject"](context, value).message == ""
    assert (root / "srv/a,ü").read_bytes() == CONTENT


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.sampled_from(["file_put", "file_inject", "injectfile"]), value=st.text(max_size=100))
def test_nothing_but_honest_errors(context: Context, name: str, value: str) -> None:
    with pytest.raises(Unsuccessful):
        COMMANDS[name](context, value)
