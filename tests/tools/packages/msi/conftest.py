from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.packages import msi
from tools.packages.msi.lock import fetch, read_lock
from tools.packages.msi.tables import Programs, Row

EPOCH = 1_700_000_000

Tables = Callable[[str], "list[Row]"]


@pytest.fixture(scope="session")
def fetched() -> dict[str, Path]:
    """What the lock file names, from the cache or the network."""
    return fetch(read_lock())


@pytest.fixture(scope="session")
def programs() -> Programs:
    return Programs()


@pytest.fixture(scope="session")
def installer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installer of this checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
        return msi.build(tmp_path_factory.mktemp("msi"))


@pytest.fixture(scope="session")
def table(programs: Programs, installer: Path) -> Tables:
    """The rows of a table of that installer, without its head."""
    return lambda name: programs.table(installer, name)[3:]


@pytest.fixture(scope="session")
def extracted(programs: Programs, installer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of that installer, laid out as it does."""
    directory = tmp_path_factory.mktemp("extracted")
    programs.run("msiextract", "--directory", str(directory), str(installer))
    return directory


@pytest.fixture(scope="session")
def signing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A certificate, its encrypted key, and the file with the key's password."""
    directory = tmp_path_factory.mktemp("signing")
    certificate, key, password = directory / "signer.pem", directory / "key.pem", directory / "password"
    password.write_text("correct horse")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "30", "-subj", "/CN=xenward tests"]
    command += ["-addext", "extendedKeyUsage=codeSigning", "-passout", f"file:{password}"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key, password
