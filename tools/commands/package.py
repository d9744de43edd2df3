"""Build what is installed in guests and in dom0, from nothing but this checkout, into dist/.

`deb` and `rpm` are the guest agent's packages, `zipapp` is the agent in one file for guests without them, `update` is a
signed update of installed agents. `plugin` is what dom0 gets, and `plugin-rpm` the same as a package. The same commit
makes the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.commands.environment import CHECKOUT
from tools.packages import deb, dom0_plugin, plugin_rpm, rpm, update, zipapp
from tools.packages.agent_tree import PackageError


def main(arguments: Sequence[str] | None = None) -> int:
    """`tools/package`: prints the path of what it built. Returns 1, with the reason, when it could not."""
    options = _parser().parse_args(arguments)
    try:
        print(options.build(options))
    except (PackageError, OSError) as error:
        print(f"tools/package: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/package", description=__doc__)
    parser.add_argument("--into", type=Path, default=CHECKOUT / "dist", metavar="DIR", help="default: %(default)s")
    kinds = parser.add_subparsers(required=True, metavar="deb | rpm | zipapp | update | plugin | plugin-rpm")
    kinds.add_parser("deb", help="for Debian and Ubuntu").set_defaults(build=lambda options: deb.build(options.into))
    kinds.add_parser("rpm", help="for RHEL and its like, Fedora, SUSE").set_defaults(
        build=lambda options: rpm.build(options.into)
    )
    one_file = kinds.add_parser("zipapp", help="for any Linux")
    one_file.add_argument(
        "--python",
        action="append",
        type=_minor,
        metavar="3.N",
        help="a version of Python that guests have; may be repeated (default: "
        + ", ".join(f"3.{minor}" for minor in zipapp.MINORS)
        + ")",
    )
    one_file.add_argument(
        "--platform",
        action="append",
        metavar="NAME",
        help="such as manylinux_2_28_aarch64, or musllinux_1_2_x86_64 for Alpine; may be repeated (default: "
        + ", ".join(zipapp.PLATFORMS)
        + ")",
    )
    one_file.add_argument("--interpreter", default=zipapp.INTERPRETER, help="default: %(default)s")
    one_file.add_argument("--wheels", type=Path, metavar="DIR", help="take the wheels from here, without a network")
    one_file.set_defaults(build=_zipapp)
    signed = kinds.add_parser("update", help="of installed agents; see tools/packages/update.py")
    signed.add_argument("--key", type=Path, required=True, metavar="PEM", help="the Ed25519 private key to sign with")
    signed.set_defaults(build=lambda options: update.write(options.into, options.key))
    for name, build, help_text in (
        ("plugin", _plugin, "for dom0; see tools/packages/dom0_plugin.py"),
        ("plugin-rpm", _plugin_rpm, "the same as a package for XenServer and XCP-ng"),
    ):
        plugin = kinds.add_parser(name, help=help_text)
        plugin.add_argument("--interpreter", default=dom0_plugin.INTERPRETER, help="default: %(default)s")
        plugin.add_argument("--bytecode", action="append", metavar="PYTHON")
        plugin.set_defaults(build=build)
    return parser


def _minor(text: str) -> int:
    major, _, minor = text.partition(".")
    if major != "3" or not minor.isdecimal() or int(minor) < 9:
        raise argparse.ArgumentTypeError("the agent needs Python 3.9 or later, written as 3.11")
    return int(minor)


def _zipapp(options: argparse.Namespace) -> Path:
    return zipapp.build(
        options.into,
        options.python or zipapp.MINORS,
        options.platform or zipapp.PLATFORMS,
        interpreter=options.interpreter,
        wheels=options.wheels,
    )


def _plugin(options: argparse.Namespace) -> Path:
    options.into.mkdir(parents=True, exist_ok=True)
    destination: Path = options.into / "xenward"
    dom0_plugin.build(destination, options.interpreter, options.bytecode)
    return destination


def _plugin_rpm(options: argparse.Namespace) -> Path:
    return plugin_rpm.build(options.into, interpreter=options.interpreter, bytecode=options.bytecode)


if __name__ == "__main__":
    sys.exit(main())
