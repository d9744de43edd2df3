"""Write docs/xenward.conf.sample: every option with its description and default, those of oslo.messaging too.

To be run again whenever an option of ours changes. What oslo.messaging has depends on its version.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.commands.environment import CHECKOUT

SAMPLE = CHECKOUT / "docs" / "xenward.conf.sample"

NAMESPACES = ("xenward", "oslo.messaging")

HEADER = """\
# Everything that xenward can be told, with what holds unless it is told. docs/operations.md explains it.
#
# To be copied to /etc/xenward/xenward.conf, with the lines that matter uncommented and the rest left out. That file
# holds passwords: mode 0600, owned by the user that the service runs as.
#
# Without a transport_url everything runs in one process, embedded.
#
# Written by tools/make_config_sample.

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """`tools/make_config_sample`: returns 0 when the file was written, or, with --check, when it is current."""
    parser = argparse.ArgumentParser(prog="tools/make_config_sample", description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=SAMPLE, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="write nothing: tell whether our options are as in FILE")
    options = parser.parse_args(arguments)
    made = sample()
    if not options.check:
        options.output.write_text(made, "utf-8")
        return 0
    if ours(options.output.read_text("utf-8")) == ours(made):
        return 0
    print(f"{options.output} is not current: run tools/make_config_sample", file=sys.stderr)
    return 1


def sample() -> str:
    """The sample as it is to be now. The distribution must be installed, its options being an entry point."""
    # Libraries below load what fits the concurrency that a process has chosen.
    from compute_driver import concurrency

    concurrency.set_up("threading")
    from oslo_config import generator

    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "sample"
        named = [word for namespace in NAMESPACES for word in ("--namespace", namespace)]
        generator.main([*named, "--wrap-width", "118", "--output-file", str(output)])
        return HEADER + output.read_text("utf-8")


def ours(text: str) -> str:
    """Those parts of a sample that do not depend on oslo.messaging's version."""
    lines = []
    mine = True
    for line in text.splitlines(keepends=True):
        if line.startswith("["):
            mine = True
        elif line.startswith("# From "):
            mine = line == "# From xenward\n"
        if mine and line.strip("#\n") and not line.startswith("[oslo_messaging_"):
            lines.append(line)
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
