"""The proofs say no whenever the disk says something else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from passlib.hash import sha512_crypt

from compute_driver.files import InjectedFile
from tools.commands import proof


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "root/.ssh").mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text(
        f"root:x:{os.getuid()}:0:root:/root:/bin/sh\nother:x:4242:0::/home/o:/bin/sh\n"
    )
    stored = sha512_crypt.using(rounds=1000).hash("right")
    (tmp_path / "etc/shadow").write_text(f"other:*:1:::::\nroot:{stored}:1::::::\n")
    return tmp_path


def test_only_the_password_of_the_hash_opens(guest: Path) -> None:
    assert proof.password_opens(guest, "root", "right")
    assert not proof.password_opens(guest, "root", "wrong")
    assert not proof.password_opens(guest, "other", "right")
    assert not proof.password_opens(guest, "nobody", "right")


def test_a_file_is_proven_by_content_mode_owner_and_kind(guest: Path) -> None:
    path = guest / "etc/file"
    path.write_bytes(b"content")
    path.chmod(0o640)
    wanted = InjectedFile("/etc/file", b"content", 0o640, "root:root")
    assert proof.file_is(guest, wanted)
    assert not proof.file_is(guest, InjectedFile("/etc/file", b"contents", 0o640, "root"))
    assert not proof.file_is(guest, InjectedFile("/etc/file", b"content", 0o600, "root"))
    assert not proof.file_is(guest, InjectedFile("/etc/file", b"content", None, "root"))
    assert not proof.file_is(guest, InjectedFile("/etc/file", b"content", 0o640, "other"))
    assert not proof.file_is(guest, InjectedFile("/etc/none", b"content", 0o640, "root"))
    (guest / "etc/link").symlink_to("file")
    assert not proof.file_is(guest, InjectedFile("/etc/link", b"content", 0o640, "root"))
    with pytest.raises(proof.NotProven):
        proof.file_is(guest, InjectedFile("/etc/file", b"content", 0o640, "stranger"))


def test_a_key_is_proven_by_its_whole_line(guest: Path) -> None:
    keys = guest / "root/.ssh/authorized_keys"
    assert not proof.key_is_authorized(guest, "root", "ssh-ed25519 AAAA me")
    keys.write_text("ssh-ed25519 BBBB you\nssh-ed25519 AAAA me\n")
    keys.chmod(0o600)
    assert proof.key_is_authorized(guest, "root", "ssh-ed25519 AAAA me")
    assert not proof.key_is_authorized(guest, "root", "ssh-ed25519 AAAA")
    keys.chmod(0o620)
    assert not proof.key_is_authorized(guest, "root", "ssh-ed25519 AAAA me")
