from __future__ import annotations

from pathlib import Path

import pytest

from tools.commands import build_msi
from tools.packages import msi
from tools.packages.agent_tree import PackageError
from tools.packages.msi import Signer


def test_it_prints_what_it_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []

    def build(directory: Path, **options: object) -> Path:
        asked.append((directory, options))
        return directory / "agent.msi"

    monkeypatch.setattr(msi, "build", build)
    assert build_msi.main(["--output", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/agent.msi\n"
    arguments = ["--output", "d", "--python-dir", "p", "--sign-certificates", "c.pem"]
    arguments += ["--sign-key", "k.pem", "--sign-password-file", "f", "--sign-timestamp", "http://t"]
    assert build_msi.main(arguments) == 0
    signer = Signer(Path("c.pem"), Path("k.pem"), Path("f"), "http://t")
    assert asked == [
        (tmp_path, {"python_directory": None, "signer": None}),
        (Path("d"), {"python_directory": Path("p"), "signer": signer}),
    ]


def test_it_says_why_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(directory: Path, **options: object) -> Path:
        raise PackageError("wixl is missing")

    monkeypatch.setattr(msi, "build", build)
    assert build_msi.main(["--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "tools/build_msi: wixl is missing\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--sign-key", "k"],
        ["--sign-certificates", "c"],
        ["--sign-password-file", "f"],
        ["--sign-timestamp", "http://t"],
        ["--sign-password", "secret"],
    ],
)
def test_half_a_signature(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_msi.main(arguments)
    assert ended.value.code == 2
