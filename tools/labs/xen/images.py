"""What the lab's machine boots: made of Debian's packages, which are only unpacked, and of this project's own code.

The large part, Debian's, is made once per set of packages (10 s); the small part once per state of the checkout (2 s).
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.labs.cache import LabError, kept, run
from tools.labs.packages import unpacked
from tools.packages import dom0_plugin

from .archive import Archive
from .kernel import modules, vmlinux

XEN = "4.17"
"""The Xen of Debian 12."""

_PYTHON = ("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libexpat1", "libffi8", "libssl3")
_SYSTEM = (
    *_PYTHON,
    "base-files",
    "base-passwd",
    "busybox-static",
    "libaudit1",
    "libbz2-1.0",
    "libc6",
    "libcap-ng0",
    "libcom-err2",
    "libcrypt1",
    "libdb5.3",
    "libext2fs2",
    "libgcc-s1",
    "libgssapi-krb5-2",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "liblzma5",
    "libncurses6",
    "libnsl2",
    "libpam-modules",
    "libpam-modules-bin",
    "libpam0g",
    "libpcre2-8-0",
    "libselinux1",
    "libsemanage2",
    "libsepol2",
    "libtinfo6",
    "libtirpc3",
    "libuuid1",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenhypfs1",
    f"libxenmisc{XEN}",
    "libxenstore4",
    "libxentoolcore1",
    "libxentoollog1",
    "libyajl2",
    "libzstd1",
    "login",
    "passwd",
    "python3-cffi-backend",
    "python3-cryptography",
    "xen-utils-common",
    f"xen-hypervisor-{XEN}-amd64",
    f"xen-utils-{XEN}",
    "xenstore-utils",
    "zlib1g",
)
"""One system for dom0 and guests: Xen's tools; Python and what the agent needs; chpasswd with all of PAM that it uses.
With hypervisor and kernel (added below) in one set, all are of one state of Debian's archive."""

_TOOLS = (
    "e2fsprogs",
    "libaio1",
    "libblkid1",
    "libbpf1",
    "libbz2-1.0",
    "libc6",
    "libcap-ng0",
    "libcapstone4",
    "libcom-err2",
    "libdaxctl1",
    "libdb5.3",
    "libelf1",
    "libext2fs2",
    "libfdt1",
    "libffi8",
    "libfuse3-3",
    "libgcc-s1",
    "libgcrypt20",
    "libglib2.0-0",
    "libgmp10",
    "libgnutls30",
    "libgpg-error0",
    "libhogweed6",
    "libibverbs1",
    "libidn2-0",
    "libjpeg62-turbo",
    "libkmod2",
    "liblzma5",
    "libmount1",
    "libndctl6",
    "libnettle8",
    "libnl-3-200",
    "libnl-route-3-200",
    "libnuma1",
    "libp11-kit0",
    "libpcre2-8-0",
    "libpixman-1-0",
    "libpmem1",
    "libpng16-16",
    "librdmacm1",
    "libsasl2-2",
    "libseccomp2",
    "libselinux1",
    "libslirp0",
    "libss2",
    "libssl3",
    "libstdc++6",
    "libtasn1-6",
    "libudev1",
    "libunistring2",
    "liburing2",
    "libuuid1",
    "libvdeplug2",
    "libzstd1",
    "qemu-system-common",
    "qemu-system-data",
    "qemu-system-x86",
    "seabios",
    "zlib1g",
)
"""What runs on this machine: QEMU and mke2fs, with their own C library, whatever this machine has itself."""

_ROOT_MODULES = ("crc32c_generic", "ext4", "overlay")
_DOM0_MODULES = (
    "ata_piix",
    "sd_mod",
    *_ROOT_MODULES,
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "xen-privcmd",
    "xenfs",
    "xen-blkback",
    "loop",
    "e1000",
)
_GUEST_MODULES = ("xen-blkfront", *_ROOT_MODULES, "xenfs")

_NOT_NEEDED = {
    "boot",
    "lib/modules",
    "usr/lib/debug",
    f"usr/lib/xen-{XEN}/boot",
    f"usr/lib/xen-{XEN}/lib/python",
    "usr/share/common-licenses",
    "usr/share/doc",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
}
"""Parts of packages that nothing here reads."""

_SYSTEM_FILES = {
    "etc/hostname": "guest\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\n",
    "etc/pam.d/common-auth": "auth required pam_unix.so\n",
    "etc/pam.d/common-account": "account required pam_unix.so\n",
    # As Debian's pam-auth-update writes it.
    "etc/pam.d/common-password": (
        "password [success=1 default=ignore] pam_unix.so obscure yescrypt\n"
        "password requisite pam_deny.so\n"
        "password required pam_permit.so\n"
    ),
    "etc/pam.d/common-session": "session required pam_unix.so\n",
}
"""What the packages' own scripts would write if they were installed."""

_DISK_SIZE = "16M"
"""Of a guest's own disk: its changes to the system."""

_SPACE_SIZE = "1G"
"""Of dom0's own disk: the memory of five suspended guests."""

_HERE = Path(__file__).resolve().parent
_CHECKOUT = _HERE.parents[2]
_CODE_OF_GUESTS = ("agent_protocol", "guest_agent")

PLUGINS = "/etc/xapi.d/plugins"
"""Where xapi looks for plugins, in dom0."""


@dataclass(frozen=True)
class Images:
    """Files to boot from, all to be left as they are.

    hypervisor: a multiboot file. kernel: of dom0, and of the guests. dom0: parts of its initramfs, in this order.
    system: the file system that dom0 and guests share, and read only. space: an empty one for dom0, to be given a copy
    of. tools: a tree with QEMU in it, see tool().
    """

    hypervisor: Path
    kernel: Path
    dom0: tuple[Path, ...]
    system: Path
    space: Path
    tools: Path

    def tool(self, name: str, *arguments: str) -> list[str]:
        """The command that runs a program of `tools` with the libraries that it was built for."""
        return _with_own_libraries(self.tools, name, *arguments)


def build() -> Images:
    """Everything, from the cache or anew. LabError when packages cannot be had or something cannot be made of them."""
    tools, packages = unpacked(_TOOLS), unpacked((*_SYSTEM, _kernel_package()))
    debian = _debian(tools, packages)
    project = _project(debian, packages)
    dom0 = (debian / "dom0.cpio", project)
    disks = debian / "system.ext4", debian / "space.ext4"
    return Images(debian / "xen.elf", debian / "vmlinux", dom0, *disks, tools)


def _debian(tools: Path, packages: Path) -> Path:
    code = [_HERE / name for name in ("images.py", "archive.py", "kernel.py")]
    named = _digest([tools.name.encode(), packages.name.encode(), *(path.read_bytes() for path in code)])

    def make(directory: Path) -> None:
        directory.mkdir()
        (compressed,) = (packages / "boot").glob(f"xen-{XEN}-*.gz")
        (directory / "xen.elf").write_bytes(gzip.decompress(compressed.read_bytes()))
        (wrapped,) = (packages / "boot").glob("vmlinuz-*")
        (directory / "vmlinux").write_bytes(vmlinux(wrapped.read_bytes()))
        for name, wanted in (("dom0", _DOM0_MODULES), ("guest", _GUEST_MODULES)):
            with Archive(directory / f"{name}.cpio") as archive:
                archive.character_device("dev/console", 5, 1)
                archive.file("bin/busybox", (packages / "bin/busybox").read_bytes(), 0o755)
                _add_modules(archive, packages, wanted)
        with tempfile.TemporaryDirectory(dir=directory) as temporary:
            root = _system_root(Path(temporary) / "root", packages)
            (root / "lab").mkdir()
            shutil.copyfile(directory / "vmlinux", root / "lab/vmlinux")
            _file_system(tools, root / "lab/disk.ext4", _DISK_SIZE, "-b", "1024", "-J", "size=1")
            _file_system(tools, directory / "system.ext4", "256M", "-O", "^has_journal", "-d", str(root))
            _file_system(tools, directory / "space.ext4", _SPACE_SIZE, "-O", "^has_journal")

    return kept("xen", f"debian-{named}", make)


def _project(debian: Path, packages: Path) -> Path:
    """An archive with the project's own programs, for dom0 and, inside, for the guests."""
    sources = [path for name in (*_CODE_OF_GUESTS, "dom0_plugins") for path in _sources(_CHECKOUT / name)]
    mine = [path for name in ("dom0", "guest") for path in sorted((_HERE / name).iterdir()) if path.is_file()]
    mine += [_HERE / "initramfs", Path(dom0_plugin.__file__)]
    contents = [piece for path in (*sources, *mine) for piece in (str(path).encode(), path.read_bytes())]
    named = _digest([debian.name.encode(), *contents])

    def make(directory: Path) -> None:
        directory.mkdir()
        with tempfile.TemporaryDirectory(dir=directory) as temporary:
            guest = Path(temporary) / "guest.cpio"
            with Archive(guest) as archive:
                archive.file("init", (_HERE / "initramfs").read_bytes(), 0o755)
                archive.file("parameters", b"BASE=/dev/xvdb CHANGES=/dev/xvda SPACE=\n")
                archive.tree(_code_of_guests(Path(temporary) / "layer", packages), below="layer")
                archive.file("layer/lab/init", (_HERE / "guest/init").read_bytes(), 0o755)
                for name in ("poweroff", "reboot"):
                    archive.file(f"layer/sbin/{name}", (_HERE / "guest/halt").read_bytes(), 0o755)
            plugin = Path(temporary) / "plugin"
            dom0_plugin.build(plugin, "/usr/bin/python3.11", [sys.executable])
            with Archive(directory / "project.cpio") as archive:
                archive.file("init", (_HERE / "initramfs").read_bytes(), 0o755)
                archive.file("parameters", b"BASE=/dev/system CHANGES= SPACE=/dev/space\n")
                archive.file("layer/lab/init", (_HERE / "dom0/init").read_bytes(), 0o755)
                archive.file("layer/lab/control.py", (_HERE / "dom0/control.py").read_bytes())
                archive.file("layer/etc/xen/scripts/block-lab", (_HERE / "dom0/block").read_bytes(), 0o755)
                archive.file(f"layer{PLUGINS}/xenward", plugin.read_bytes(), 0o755)
                archive.file("layer/lab/guest.cpio", (debian / "guest.cpio").read_bytes() + guest.read_bytes())

    return kept("xen", f"project-{named}", make) / "project.cpio"


def _code_of_guests(layer: Path, packages: Path) -> Path:
    for source in (path for name in _CODE_OF_GUESTS for path in _sources(_CHECKOUT / name)):
        copy = layer / "usr/lib/python3/dist-packages" / source.relative_to(_CHECKOUT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    _compile(packages, layer)
    return layer


def _add_modules(archive: Archive, tree: Path, names: Sequence[str]) -> None:
    files = modules(tree / "lib/modules", names)
    for file in files:
        archive.file(f"modules/{file.name}", file.read_bytes())
    archive.file("modules/order", "".join(f"{file.name}\n" for file in files).encode("ascii"))


def _system_root(root: Path, packages: Path) -> Path:
    """What is needed of the packages, compiled and configured, with busybox's programs where there are no others."""

    def not_needed(here: str, names: list[str]) -> list[str]:
        return [name for name in names if str((Path(here) / name).relative_to(packages)) in _NOT_NEEDED]

    shutil.copytree(packages, root, symlinks=True, ignore=not_needed)
    _compile(packages, root)
    for name, content in _SYSTEM_FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    for name in ("dev", "proc", "sys", "run", "tmp", "root", "var/lib", "var/log"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(root / "var/run", ignore_errors=True)
    (root / "var/run").symlink_to("/run")
    accounts = (packages / "usr/share/base-passwd/passwd.master").read_text().splitlines()
    (root / "etc/passwd").write_text("".join(f"{line.replace(':*:', ':x:', 1)}\n" for line in accounts))
    (root / "etc/shadow").write_text("".join(f"{line.split(':')[0]}:*:19700:0:99999:7:::\n" for line in accounts))
    (root / "etc/shadow").chmod(0o600)
    (root / "root").chmod(0o700)
    shutil.copyfile(packages / "usr/share/base-passwd/group.master", root / "etc/group")
    places = ("bin", "sbin", "usr/bin", "usr/sbin", f"usr/lib/xen-{XEN}/bin")
    for program in run([str(packages / "bin/busybox"), "--list"]).split():
        if not any((root / place / program).exists() for place in places):
            (root / "bin" / program).symlink_to("busybox")
    return root


def _compile(packages: Path, directory: Path) -> None:
    # With its own Python: bytecode of another version would be passed over.
    python = _with_own_libraries(packages, "usr/bin/python3.11", "-I", "-S", "-m", "compileall", "-q", "-f")
    # An archive keeps no times of files, so bytecode that is told the time of its source would never be right.
    options = ["--invalidation-mode", "unchecked-hash", "-s", str(directory), "-p", "/", str(directory)]
    run(["env", f"PYTHONHOME={packages}/usr", *python, *options])


def _with_own_libraries(tree: Path, program: str, *arguments: str) -> list[str]:
    libraries = ":".join(str(tree / name) for name in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"))
    loader = tree / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    return [str(loader), "--library-path", libraries, str(tree / program), *arguments]


def _file_system(tools: Path, image: Path, size: str, *options: str) -> None:
    command = _with_own_libraries(tools, "sbin/mke2fs", "-q", "-t", "ext4", *options, str(image), size)
    # Files belong in the image to whom they belong here, as seen by mke2fs.
    as_root = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
    run([*as_root, *command])


def _kernel_package() -> str:
    """The current kernel of Debian; the one for clouds cannot be dom0."""
    for line in run(["apt-cache", "depends", "linux-image-amd64"]).splitlines():
        kind, _, name = line.strip().partition(": ")
        if kind == "Depends":
            return name
    raise LabError("apt knows no linux-image-amd64")


def _sources(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*.py"))


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(b"%d:" % len(piece) + piece)
    return digest.hexdigest()[:16]
