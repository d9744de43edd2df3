"""Kernels are taken out of their wrapper, and modules come with what they need."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import pytest

from tools.labs.cache import LabError
from tools.labs.xen.kernel import modules, vmlinux

KERNEL = b"\x7fELF" + bytes(range(256)) * 20


def bzimage(payload: bytes) -> bytes:
    """A kernel as a boot loader finds it: two sectors of setup, and what unpacks itself."""
    setup = bytearray(3 * 512)
    setup[0x1F1] = 2
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", setup, 0x248, 100, len(payload))
    return bytes(setup) + b"\x90" * 100 + payload + b"\x90" * 50


def test_the_kernel_in_a_bzimage() -> None:
    size = struct.pack("<I", len(KERNEL))
    assert vmlinux(bzimage(lzma.compress(KERNEL, check=lzma.CHECK_CRC32) + size)) == KERNEL


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (bytes(4096), "no bzImage"),
        (b"", "no bzImage"),
        (bzimage(b"something else"), "not packed with xz"),
        (bzimage(lzma.compress(b"no kernel")), "no ELF file"),
    ],
)
def test_what_is_no_such_kernel_is_told(image: bytes, reason: str) -> None:
    with pytest.raises(LabError, match=reason):
        vmlinux(image)


def module(folder: Path, name: str, depends: str) -> None:
    (folder / f"{name}.ko").write_bytes(b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0retpoline=Y\0")


def test_what_a_module_needs_is_loaded_before_it(tmp_path: Path) -> None:
    (tmp_path / "fs").mkdir()
    module(tmp_path / "fs", "ext4", "jbd2,mbcache")
    module(tmp_path, "jbd2", "")
    module(tmp_path, "mbcache", "")
    module(tmp_path, "xen-blkfront", "")
    module(tmp_path, "uses-blkfront", "xen_blkfront,jbd2")
    order = [path.stem for path in modules(tmp_path, ["ext4", "uses_blkfront", "ext4"])]
    assert order == ["jbd2", "mbcache", "ext4", "xen-blkfront", "uses-blkfront"]


def test_a_missing_module_is_told(tmp_path: Path) -> None:
    module(tmp_path, "ext4", "jbd2")
    with pytest.raises(LabError, match="jbd2"):
        modules(tmp_path, ["ext4"])
