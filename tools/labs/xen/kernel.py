"""What is needed of Debian's kernel package: the kernel itself without its wrapper, and modules with their needs."""

from __future__ import annotations

import lzma
import re
import struct
from collections.abc import Sequence
from pathlib import Path

from tools.labs.cache import LabError

_SETUP_SECTORS = 0x1F1
_MAGIC = 0x202
_PAYLOAD = 0x248
"""Offsets in a bzImage's header: Documentation/arch/x86/boot.rst of Linux."""

_SECTOR = 512
_ELF = b"\x7fELF"

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


def vmlinux(bzimage: bytes) -> bytes:
    """The ELF file in a compressed kernel. It starts ten seconds sooner under emulation than one that unpacks itself.

    LabError when it is no kernel that is packed with xz, as Debian's are.
    """
    if bzimage[_MAGIC : _MAGIC + 4] != b"HdrS":
        raise LabError("the kernel is no bzImage")
    offset, length = struct.unpack_from("<II", bzimage, _PAYLOAD)
    begin = (bzimage[_SETUP_SECTORS] + 1) * _SECTOR + offset
    try:
        # Behind the compressed data stands its size, which is none of xz's business.
        kernel = lzma.LZMADecompressor().decompress(bzimage[begin : begin + length])
    except lzma.LZMAError:
        raise LabError("the kernel is not packed with xz") from None
    if not kernel.startswith(_ELF):
        raise LabError("the kernel's content is no ELF file")
    return kernel


def modules(tree: Path, names: Sequence[str]) -> list[Path]:
    """The files of these modules and of what they depend on, in the order in which they must be loaded.

    tree: has the kernel's modules somewhere below. LabError when one is missing.
    """
    files = {path.stem.replace("-", "_"): path for path in tree.rglob("*.ko")}
    order: list[Path] = []

    def add(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None:
            raise LabError(f"the kernel's package has no module {name}")
        if path in order:
            return
        depends = _DEPENDS.search(path.read_bytes())
        for needed in depends[1].decode("ascii").split(",") if depends else []:
            if needed:
                add(needed)
        order.append(path)

    for name in names:
        add(name)
    return order
