"""The installer's tables, its files, and its bytes: what Windows Installer will do with it."""

from __future__ import annotations

import hashlib
import re
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from guest_agent.service import windows
from guest_agent.service.windows_pywin32 import EVENT_IDS
from tools.packages import msi
from tools.packages.agent_tree import PackageError, version
from tools.packages.msi import contents, wxs
from tools.packages.msi.signing import Signer
from tools.packages.msi.tables import Programs, Row

from .conftest import EPOCH, Tables
from .messages import messages
from .test_lock import python_directory

pytestmark = pytest.mark.services

GUID = re.compile(r"\{[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}\}")

FOR_64_BIT, KEY_IS_REGISTRY = 0x100, 0x4


def by_name(rows: list[Row]) -> dict[str, Row]:
    assert len({row[0] for row in rows}) == len(rows)
    return {row[0]: row for row in rows}


@pytest.fixture(scope="module")
def files(fetched: dict[str, Path]) -> dict[str, bytes]:
    return contents.installed(fetched)


@pytest.fixture(scope="module")
def places(table: Tables) -> dict[str, str]:
    """The path of each file's row, below the installer's directory."""
    directories = by_name(table("Directory"))

    def path(directory: str) -> str:
        _, parent, name = directories[directory]
        return "" if directory == "INSTALLDIR" else f"{path(parent)}{name}/"

    components = by_name(table("Component"))
    return {row[0]: path(components[row[1]][2]) + row[2].split("|")[-1] for row in table("File")}


class TestFiles:
    def test_they_arrive_as_they_were(self, extracted: Path, files: dict[str, bytes]) -> None:
        (directory,) = extracted.rglob(wxs.DIRECTORY)
        found = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
        assert found.keys() == files.keys()
        for name, path in found.items():
            assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(files[name]).digest(), name

    def test_the_table_names_them_all(self, table: Tables, files: dict[str, bytes], places: dict[str, str]) -> None:
        assert sorted(places.values()) == sorted(files)
        for row in table("File"):
            assert int(row[3]) == len(files[places[row[0]]])

    def test_each_has_a_component_of_its_own_for_x64(self, table: Tables, places: dict[str, str]) -> None:
        components = by_name(table("Component"))
        assert {row[1] for row in table("File")} == components.keys()
        for row in table("File"):
            _, identity, _, attributes, condition, key = components[row[1]]
            assert key == row[0]
            assert int(attributes) & FOR_64_BIT
            assert not int(attributes) & KEY_IS_REGISTRY
            assert condition == ""
            # Of the path alone, so that every version has the same.
            wanted = uuid.uuid5(wxs.NAMESPACE, f"component {places[row[0]].lower()}")
            assert identity == f"{{{str(wanted).upper()}}}"

    def test_the_directory(self, table: Tables) -> None:
        assert by_name(table("Directory"))["INSTALLDIR"] == ["INSTALLDIR", "ProgramFiles64Folder", "xenward"]

    def test_every_component_is_installed(self, table: Tables) -> None:
        assert {row[1] for row in table("FeatureComponents")} == {row[0] for row in table("Component")}

    def test_the_agents_own_directory_is_left_to_the_agent(self, table: Tables) -> None:
        """Configuration, identity and logs: neither made, nor replaced, nor removed."""
        assert not [row for row in table("Directory") if "AppData" in row[0]]
        assert table("RemoveFile") == table("CreateFolder") == []


class TestService:
    def test_what_is_registered(self, table: Tables, places: dict[str, str]) -> None:
        ((_, name, shown, kind, start, errors, group, needs, account, password, arguments, component, text),) = table(
            "ServiceInstall"
        )
        assert (name, shown, text) == ("XenwardAgent", "xenward guest agent", windows.DESCRIPTION)
        assert int(kind) == 0x10
        assert int(start) == 2
        assert int(errors) & 0xFFFF == 1
        assert (group, needs, account, password) == ("", "", "", "")
        assert arguments == "-B -m guest_agent.service.windows"
        assert places[by_name(table("Component"))[component][5]] == "python.exe"

    def test_when_it_starts_and_stops(self, table: Tables) -> None:
        start_at_install, stop_always, remove_at_uninstall = 0x1, 0x2 | 0x20, 0x80
        controls = {int(row[2]): row for row in table("ServiceControl")}
        assert controls.keys() == {start_at_install, stop_always | remove_at_uninstall}
        assert {row[1] for row in controls.values()} == {"XenwardAgent"}
        # The installation does not wait for the start, which a bad configuration would make it fail with.
        assert controls[start_at_install][4] == "0"
        assert controls[stop_always | remove_at_uninstall][4] == "1"

    def test_it_can_be_left_to_the_next_boot(self, table: Tables) -> None:
        actions = by_name(table("InstallExecuteSequence"))
        assert actions["StartServices"][1] == 'VersionNT AND START <> "0"'
        properties = dict(table("Property"))
        assert properties["START"] == "1"
        assert "START" in properties["SecureCustomProperties"].split(";")

    def test_no_program_is_run_by_the_installer(self, table: Tables) -> None:
        assert table("CustomAction") == []


class TestEventSource:
    def test_the_text_of_its_events_is_found(self, table: Tables, places: dict[str, str]) -> None:
        rows = {row[3]: row for row in table("Registry")}
        assert rows.keys() == {"EventMessageFile", "TypesSupported"}
        for row in rows.values():
            assert (row[1], row[2]) == ("2", r"SYSTEM\CurrentControlSet\Services\EventLog\Application\XenwardAgent")
        (reference,) = re.findall(r"\A\[#([^]]+)\]\Z", rows["EventMessageFile"][4])
        assert places[reference] == wxs.MESSAGES
        assert rows["TypesSupported"][4] == "#7"

    @pytest.mark.parametrize("event", EVENT_IDS.values())
    def test_it_is_what_the_agent_says_and_nothing_else(self, files: dict[str, bytes], event: int) -> None:
        assert messages(files[wxs.MESSAGES])[event] == "%1\r\n"


class TestUpgrade:
    def test_older_ones_and_the_same_version_are_replaced_and_newer_ones_stay(self, table: Tables) -> None:
        only_detect, max_inclusive = 0x2, 0x200
        rows = {row[6]: row for row in table("Upgrade")}
        assert rows.keys() == {"WIX_UPGRADE_DETECTED", "WIX_DOWNGRADE_DETECTED"}
        assert {row[0] for row in rows.values()} == {f"{{{str(wxs.UPGRADE_CODE).upper()}}}"}
        older, newer = rows["WIX_UPGRADE_DETECTED"], rows["WIX_DOWNGRADE_DETECTED"]
        assert older[1:3] == ["", version()]
        assert int(older[4]) & max_inclusive
        assert not int(older[4]) & only_detect
        assert newer[1:3] == [version(), ""]
        assert int(newer[4]) == only_detect

    def test_the_identity_of_all_versions_never_changes(self) -> None:
        assert str(wxs.UPGRADE_CODE) == "803b6ae9-ba36-5db2-91a3-44e03c1eb26f"

    def test_going_back_is_refused_with_a_reason(self, table: Tables) -> None:
        assert dict(table("LaunchCondition")) == {
            "NOT WIX_DOWNGRADE_DETECTED": wxs.NEWER,
            "Installed OR (VersionNT64 AND WINDOWSMAJOR)": wxs.TOO_OLD,
        }

    def test_the_old_one_is_back_when_the_new_one_cannot_be_installed(self, table: Tables) -> None:
        sequence = {row[0]: int(row[2]) for row in table("InstallExecuteSequence")}
        assert sequence["InstallInitialize"] < sequence["RemoveExistingProducts"] < sequence["ProcessComponents"]
        assert sequence["AppSearch"] < sequence["LaunchConditions"]
        assert sequence["StopServices"] < sequence["RemoveFiles"] < sequence["InstallFiles"] < sequence["StartServices"]

    def test_files_are_replaced_whatever_version_they_say_they_have(self, table: Tables) -> None:
        assert dict(table("Property"))["REINSTALLMODE"] == "amus"


class TestIdentity:
    def test_for_the_whole_computer(self, table: Tables) -> None:
        properties = dict(table("Property"))
        assert properties["ALLUSERS"] == "1"
        assert properties["ProductVersion"] == version()
        assert GUID.fullmatch(properties["ProductCode"])

    def test_the_summary(self, programs: Programs, installer: Path) -> None:
        shown = programs.run("msiinfo", "suminfo", str(installer))
        assert "Template: x64;1033" in shown
        assert "Created: Tue Nov 14 22:13:20 2023" in shown
        assert "Last saved: Tue Nov 14 22:13:20 2023" in shown

    def test_the_name(self, installer: Path) -> None:
        assert installer.name == f"xenward-agent-{version()}-x64.msi"


def identities(programs: Programs, installer: Path) -> tuple[str, str]:
    (product,) = (row[1] for row in programs.table(installer, "Property") if row[0] == "ProductCode")
    (package,) = (row[1] for row in programs.table(installer, "_SummaryInformation") if row[0] == "9")
    return product, package


class TestReproducible:
    def test_the_same_bytes_each_time(self, installer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
        monkeypatch.setenv("TZ", "Asia/Kolkata")
        assert msi.build(tmp_path).read_bytes() == installer.read_bytes()

    def test_another_date_is_another_package_of_the_same_product(
        self, programs: Programs, installer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
        product, package = identities(programs, msi.build(tmp_path))
        assert product == identities(programs, installer)[0]
        assert package != identities(programs, installer)[1]

    def test_another_version_is_another_product_with_the_same_components(
        self, programs: Programs, installer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
        newer = msi.build(tmp_path, "9.0.0")
        assert newer.name == "xenward-agent-9.0.0-x64.msi"
        assert not set(identities(programs, newer)) & set(identities(programs, installer))
        assert programs.table(newer, "Component") == programs.table(installer, "Component")

    def test_other_content_is_another_product(self) -> None:
        codes = {
            wxs.product_code("1.0.0", files)
            for files in ({"a": b"b"}, {"a": b"c"}, {"b": b"b"}, {"a": b"b", "c": b""}, {"a": b"", "b": b""})
        }
        assert len(codes) == 5


@pytest.mark.parametrize("text", ["1.0rc1", "1.0", "1.2.3.4", "256.0.0", "1.0.65536", "01.0.0", "1.0.0\n"])
def test_versions_that_windows_cannot_compare(text: str) -> None:
    with pytest.raises(PackageError, match="three numbers"):
        msi.checked_version(text)


def test_another_python(tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = python_directory(tmp_path / "python")
    (directory / "extra.pyd").write_bytes(b"extra")
    built = msi.build(tmp_path / "dist", python_directory=directory)
    names = {row[2] for row in programs.table(built, "File")[3:]}
    assert "extra.pyd" in names
    assert "libcrypto-3.dll" not in names


class TestSigning:
    @pytest.fixture
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(contents, "installed", lambda *_: {"python.exe": b"a", wxs.MESSAGES: b"b"})

    def test_signed(self, tmp_path: Path, small: None, signing: tuple[Path, Path, Path]) -> None:
        signed = msi.build(tmp_path, signer=Signer(*signing))
        command = ["osslsigncode", "verify", "-CAfile", str(signing[0]), "-in", str(signed)]
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        assert "Signature verification: ok" in shown
        assert "CN=xenward tests" in shown.replace("CN = ", "CN=")

    def test_the_password_is_no_argument(
        self,
        tmp_path: Path,
        small: None,
        signing: tuple[Path, Path, Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        commands: list[list[str]] = []
        monkeypatch.setattr("tools.packages.msi.signing.run", commands.append)
        Signer(*signing, timestamp="http://127.0.0.1:1/").sign(tmp_path / "in", tmp_path / "out")
        assert "correct horse" not in " ".join(commands[0])
        assert commands[0][commands[0].index("-readpass") + 1] == str(signing[2])
        assert "http://127.0.0.1:1/" in commands[0]

    def test_a_wrong_password_leaves_nothing(
        self, tmp_path: Path, small: None, signing: tuple[Path, Path, Path]
    ) -> None:
        wrong = tmp_path / "wrong"
        wrong.write_text("incorrect horse")
        with pytest.raises(PackageError, match="osslsigncode ended with") as raised:
            msi.build(tmp_path / "dist", signer=Signer(signing[0], signing[1], wrong))
        assert "horse" not in str(raised.value)
        assert list((tmp_path / "dist").iterdir()) == []


def test_wixl_that_changes_its_tables_is_noticed(
    programs: Programs, installer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy.msi"
    copy.write_bytes(installer.read_bytes())
    unchanged: Callable[[Row], Row] = list
    with pytest.raises(PackageError, match="0 rows of the table Upgrade were to be changed, not 1"):
        programs.edit(copy, "Upgrade", unchanged)
