"""Signing the installer with osslsigncode, so that Windows shows whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tools.packages.agent_tree import require, run

_NAME = "xenward guest agent"


@dataclass(frozen=True)
class Signer:
    """certificates: the signer's and those between it and a known authority, PEM. key: the private one, PEM or PKCS#8.

    password_file: holds the key's password, which is never an argument of a program, for all users see those.
    timestamp: URL of a time-stamping authority (RFC 3161), by which the signature outlives the certificate; the
    installer is then another one each time.
    """

    certificates: Path
    key: Path
    password_file: Path | None = None
    timestamp: str | None = None

    def sign(self, unsigned: Path, signed: Path) -> None:
        """Write the signed installer. PackageError, with osslsigncode's words, when it cannot be signed."""
        require("osslsigncode", "osslsigncode")
        command = ["osslsigncode", "sign", "-h", "sha256", "-n", _NAME]
        command += ["-certs", str(self.certificates), "-key", str(self.key)]
        if self.password_file is not None:
            command += ["-readpass", str(self.password_file)]
        if self.timestamp is not None:
            command += ["-ts", self.timestamp]
        run([*command, "-in", str(unsigned), "-out", str(signed)])
