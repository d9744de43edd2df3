from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guest_agent.identity import own_identity
from guest_agent.system.directory import DirectorySystem

from .conftest import VM, names

OTHER_VM = "00000000-0000-4000-8000-000000000001"


def file_of(root: Path) -> Path:
    return root / "var/lib/xenward/identity.json"


def test_it_is_made_once_and_kept(root: Path) -> None:
    umask = os.umask(0)
    try:
        first = own_identity(DirectorySystem(str(root)), VM)
    finally:
        os.umask(umask)
    assert own_identity(DirectorySystem(str(root)), VM).public == first.public
    assert json.loads(file_of(root).read_text())["vm"] == VM
    assert file_of(root).stat().st_mode & 0o7777 == 0o600
    assert file_of(root).parent.stat().st_mode & 0o7777 == 0o700
    assert names(file_of(root).parent) == ["identity.json"]


def test_a_folder_that_is_open_is_closed(root: Path) -> None:
    file_of(root).parent.mkdir(parents=True)
    file_of(root).parent.chmod(0o755)
    own_identity(DirectorySystem(str(root)), VM)
    assert file_of(root).parent.stat().st_mode & 0o7777 == 0o700


def test_a_copy_gets_another(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    original = own_identity(DirectorySystem(str(root)), VM)
    copy = own_identity(DirectorySystem(str(root)), OTHER_VM)
    assert copy.public != original.public
    assert own_identity(DirectorySystem(str(root)), OTHER_VM).public == copy.public
    assert "another VM" in caplog.text


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=100),
        st.fixed_dictionaries(
            {"vm": st.sampled_from([VM, 5, None])},
            optional={"private": st.one_of(st.none(), st.just("AAAA"), st.just("A" * 44), st.text(max_size=50))},
        ).map(lambda members: json.dumps(members).encode()),
        st.sampled_from([b"", b"{", b"[" * 5000]),
    )
)
def test_garbage_is_replaced(root: Path, content: bytes) -> None:
    own_identity(DirectorySystem(str(root)), VM)
    file_of(root).write_bytes(content)
    made = own_identity(DirectorySystem(str(root)), VM)
    assert own_identity(DirectorySystem(str(root)), VM).public == made.public
    assert file_of(root).read_bytes() != content


def directory_in_its_place(root: Path) -> None:
    file_of(root).mkdir(parents=True)


def link_in_its_place(root: Path) -> None:
    file_of(root).parent.mkdir(parents=True)
    file_of(root).symlink_to(root / "elsewhere")


def file_for_folder(root: Path) -> None:
    file_of(root).parent.parent.mkdir(parents=True)
    file_of(root).parent.write_text("")


@pytest.mark.parametrize("spoil", [directory_in_its_place, link_in_its_place, file_for_folder])
def test_what_cannot_be_kept_is_told(root: Path, spoil: object, caplog: pytest.LogCaptureFixture) -> None:
    spoil(root)  # type: ignore[operator]
    assert own_identity(DirectorySystem(str(root)), VM).public != own_identity(DirectorySystem(str(root)), VM).public
    assert "the identity cannot be kept" in caplog.text
    assert not (root / "elsewhere").exists()


def test_the_private_half_is_not_logged(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    own_identity(DirectorySystem(str(root)), VM)
    private = json.loads(file_of(root).read_text())["private"]
    assert private not in caplog.text
    assert "SHA256:" in caplog.text
