"""Build and sign an update of the guest agent: what the sealed command agent_update installs.

python -m tools.packages.update --key signing.pem dist
python -m tools.packages.update --key signing.pem --public-key

The first writes `xenward-agent-<version>.update`, the artefact, and `xenward-agent-<version>.update.json`, the
command's arguments; add `url`, where guests can fetch the artefact, or `content`, the artefact in base64. The second
prints what guests must have as `key` in the section [update] of /etc/xenward/agent.conf.

The key is an Ed25519 private key in PEM, as `openssl genpkey -algorithm ed25519 -aes256` makes it. Whoever holds it can
run anything as the superuser of every guest that names it. The passphrase is asked for.

The same sources make the same artefact, byte for byte, with the same zlib: so others can build it and compare.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent_protocol.identity import Identity
from agent_protocol.strict import encode_base64
from guest_agent.launch import code_version
from guest_agent.update.artefact import MANIFEST, PACKAGES, read_artefact
from guest_agent.update.statement import sign

from .agent_tree import PackageError

PYTHON = ">=3.9"
"""What the agent needs, as setup.cfg says it."""

MINIMUM = "0.1.0"
"""The oldest agent that can install today's: the first that takes updates."""

SOURCES = Path(__file__).parents[2]

_EPOCH = (1980, 1, 1, 0, 0, 0)


def build(sources: Path = SOURCES, minimum: str = MINIMUM) -> tuple[str, bytes]:
    """The version of the agent below `sources`, and its artefact. Refused (`bad_artefact`) when no agent takes it."""
    version = code_version(str(sources)) or ""
    manifest = json.dumps({"version": version, "python": PYTHON, "minimum": minimum}, indent=1) + "\n"
    contents = {MANIFEST: manifest.encode("ascii")}
    for package in PACKAGES:
        for path in (sources / package).rglob("*.py"):
            contents[path.relative_to(sources).as_posix()] = path.read_bytes()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in sorted(contents.items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED, 9)
    # As the agents will do it.
    read_artefact(file.getvalue())
    return version, file.getvalue()


def signed_arguments(private: Identity, version: str, artefact: bytes) -> dict[str, str]:
    """The arguments of agent_update for an artefact, but for where it is."""
    sha256 = hashlib.sha256(artefact).hexdigest()
    return {"version": version, "sha256": sha256, "signature": sign(private, version, sha256)}


def read_key(path: Path) -> Identity:
    """The signing key in a PEM file; its passphrase is asked for on the terminal when there is one.

    ValueError when it is no Ed25519 private key, or the passphrase is not right; OSErrors as they come.
    """
    content = path.read_bytes()
    try:
        key = load_pem_private_key(content, None)
    except TypeError:  # what cryptography raises for a key that is encrypted
        key = load_pem_private_key(content, getpass.getpass(f"Passphrase of {path}: ").encode("utf-8"))
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("it is not an Ed25519 key")
    return Identity(key)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line above. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.packages.update", description="Build and sign an update of the guest agent."
    )
    parser.add_argument("--key", type=Path, required=True, metavar="PEM", help="the Ed25519 private key to sign with")
    parser.add_argument("--public-key", action="store_true", help="print the public key for agent.conf, build nothing")
    parser.add_argument("destination", type=Path, nargs="?", metavar="DIST", help="directory to write both files to")
    options = parser.parse_args(arguments)
    if (options.destination is None) is not options.public_key:
        parser.error("one of DIST and --public-key is needed")
    try:
        private = read_key(options.key)
    except (OSError, ValueError) as error:
        print(f"{options.key} cannot be used as the signing key: {error}", file=sys.stderr)
        return 1
    if options.public_key:
        print(encode_base64(private.public))
        return 0
    print(_write(options.destination, private))
    return 0


def write(destination: Path, key: Path) -> Path:
    """Build and sign: the artefact's path, beside which the arguments of agent_update are in a file `.json`.

    PackageError when the key cannot be used.
    """
    try:
        return _write(destination, read_key(key))
    except ValueError as error:
        raise PackageError(f"{key} cannot be used as the signing key: {error}") from None


def _write(destination: Path, private: Identity) -> Path:
    version, artefact = build()
    destination.mkdir(parents=True, exist_ok=True)
    path = destination / f"xenward-agent-{version}.update"
    path.write_bytes(artefact)
    told = json.dumps(signed_arguments(private, version, artefact), indent=1) + "\n"
    path.with_name(path.name + ".json").write_text(told, "ascii")
    return path


if __name__ == "__main__":
    sys.exit(main())
