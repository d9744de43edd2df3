"""The installer as wixl reads it: which file goes where, the service, and the source in the event log.

Every identity is computed: that of a component from its path, so that it is the same in all versions, as Windows
Installer counts on; that of a product from its content.
"""

from __future__ import annotations

import hashlib
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from guest_agent.service import windows
from tools.packages.agent_tree import DESCRIPTION

from .contents import LIBRARIES

NAMESPACE = uuid.UUID("6f0d8c7e-5a0e-5c52-9d0b-3f0c1f8a6f43")
"""Of all identities below. It never changes."""

UPGRADE_CODE = uuid.uuid5(NAMESPACE, "upgrade")
"""What all versions have in common, by which each finds the one before it."""

MANUFACTURER = "xenward"
DIRECTORY = "xenward"
"""Below the directory for programs."""

ARGUMENTS = f"-B -m {windows.__name__}"
"""With -B no bytecode is written: nobody would remove it."""

MESSAGES = f"{LIBRARIES}/win32/servicemanager.pyd"
"""The file in which the event viewer finds the text of the service's events."""

EVENT_KEY = rf"SYSTEM\CurrentControlSet\Services\EventLog\Application\{windows.NAME}"

NEWER = "A newer version of the xenward guest agent is installed. Remove it first to go back to this one."
TOO_OLD = "The xenward guest agent needs Windows 10, Windows Server 2016 or later, for x64."

_ALL_EVENT_TYPES = 7

_PROGRAM = "python.exe"


def product_code(version: str, files: Mapping[str, bytes]) -> uuid.UUID:
    """The identity of a product: another one for each version, and for each content."""
    digest = hashlib.sha256(version.encode())
    for path, content in sorted(files.items()):
        digest.update(f"{len(path)} {len(content)} {path}".encode() + content)
    return uuid.uuid5(NAMESPACE, f"product {digest.hexdigest()}")


def identifier(kind: str, path: str) -> str:
    """The name of something in the installer's tables: they take neither all characters nor any length."""
    return f"{kind}{hashlib.sha256(path.lower().encode()).hexdigest()[:24]}"


def document(version: str, product: uuid.UUID, paths: Sequence[str]) -> bytes:
    """The document that wixl reads in a directory which has these files. version: three numbers."""
    root = ET.Element("Wix", xmlns="http://schemas.microsoft.com/wix/2006/wi")
    element = ET.SubElement(
        root,
        "Product",
        Id=_text(product),
        Name=windows.DISPLAY_NAME,
        Language="1033",
        Version=version,
        Manufacturer=MANUFACTURER,
        UpgradeCode=_text(UPGRADE_CODE),
    )
    ET.SubElement(
        element,
        "Package",
        InstallerVersion="500",
        Compressed="yes",
        InstallScope="perMachine",
        Description=windows.DISPLAY_NAME,
        Comments=" ".join(DESCRIPTION.split()),
    )
    ET.SubElement(element, "MajorUpgrade", DowngradeErrorMessage=NEWER)
    _system_version(element)
    ET.SubElement(element, "Media", Id="1", Cabinet="agent.cab", EmbedCab="yes")
    # Files of ours are replaced whatever version they say they have: wixl does not tell Windows Installer theirs.
    for name, value in (("REINSTALLMODE", "amus"), ("ARPNOMODIFY", "1"), ("START", "1")):
        ET.SubElement(element, "Property", Id=name, Value=value)
    target = ET.SubElement(element, "Directory", Id="TARGETDIR", Name="SourceDir")
    programs = ET.SubElement(target, "Directory", Id="ProgramFiles64Folder")
    directories = {"": ET.SubElement(programs, "Directory", Id="INSTALLDIR", Name=DIRECTORY)}
    feature = ET.Element("Feature", Id="Agent", Title=windows.DISPLAY_NAME, Level="1")
    for path in sorted(paths):
        component = _component(_directory(directories, path.rpartition("/")[0]), path)
        ET.SubElement(feature, "ComponentRef", Id=component.attrib["Id"])
        if path == _PROGRAM:
            _service(component)
        elif path == MESSAGES:
            _event_source(component, path)
    element.append(feature)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, "unicode")}\n'.encode()


def _system_version(product: ET.Element) -> None:
    """Windows Installer tells programs that Windows 10 is Windows 8.1; this number only the later one has."""
    found = ET.SubElement(product, "Property", Id="WINDOWSMAJOR")
    ET.SubElement(
        found,
        "RegistrySearch",
        Id="WindowsMajor",
        Root="HKLM",
        Key=r"SOFTWARE\Microsoft\Windows NT\CurrentVersion",
        Name="CurrentMajorVersionNumber",
        Type="raw",
        Win64="yes",
    )
    ET.SubElement(product, "Condition", Message=TOO_OLD).text = "Installed OR (VersionNT64 AND WINDOWSMAJOR)"


def _text(identity: uuid.UUID) -> str:
    return str(identity).upper()


def _directory(known: dict[str, ET.Element], path: str) -> ET.Element:
    if path not in known:
        above, _, name = path.rpartition("/")
        parent = _directory(known, above)
        known[path] = ET.SubElement(parent, "Directory", Id=identifier("d", path), Name=name)
    return known[path]


def _component(directory: ET.Element, path: str) -> ET.Element:
    """One for each file, as Microsoft's rules for components have it."""
    component = ET.SubElement(
        directory,
        "Component",
        Id=identifier("c", path),
        Guid=_text(uuid.uuid5(NAMESPACE, f"component {path.lower()}")),
        Win64="yes",
    )
    name = path.rpartition("/")[2]
    ET.SubElement(component, "File", Id=identifier("f", path), Name=name, Source=path, KeyPath="yes")
    return component


def _service(component: ET.Element) -> None:
    ET.SubElement(
        component,
        "ServiceInstall",
        Id="Service",
        Name=windows.NAME,
        DisplayName=windows.DISPLAY_NAME,
        Description=windows.DESCRIPTION,
        Arguments=ARGUMENTS,
        Type="ownProcess",
        Start="auto",
        ErrorControl="normal",
        Vital="yes",
    )
    ET.SubElement(
        component, "ServiceControl", Id="Stop", Name=windows.NAME, Stop="both", Remove="uninstall", Wait="yes"
    )
    # Without waiting: a configuration that keeps the service from running must not undo the installation.
    ET.SubElement(component, "ServiceControl", Id="Start", Name=windows.NAME, Start="install", Wait="no")


def _event_source(component: ET.Element, path: str) -> None:
    for name, kind, value in (
        ("EventMessageFile", "string", f"[#{identifier('f', path)}]"),
        ("TypesSupported", "integer", str(_ALL_EVENT_TYPES)),
    ):
        ET.SubElement(component, "RegistryValue", Root="HKLM", Key=EVENT_KEY, Name=name, Type=kind, Value=value)
