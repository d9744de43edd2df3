"""docs/operations.md shows every command, and none that the command line would not take."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from compute_driver.cli import main as cli

DOCS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"


def test_every_command_is_shown_as_it_is() -> None:
    section = DOCS.read_text().partition("\n## Commands\n")[2].partition("\n## ")[0]
    lines = [shlex.split(line)[1:] for line in section.splitlines() if line.startswith("    xenward ")]
    app = cli.XenwardApp()
    told = set()
    for line in lines:
        found: Any = app.command_manager.find_command(line)
        command, name, arguments = found
        told.add(name)
        # Ends the process when it does not understand them.
        assert command(app, None).get_parser(name).parse_args(arguments)
    assert told == cli.COMMANDS.keys()
