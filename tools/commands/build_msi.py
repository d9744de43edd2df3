"""Build the installer of the Windows agent on Linux, from this checkout and what tools/packages/msi/lock.txt names.

What is not in this checkout is fetched once, by pip and apt, and kept in the user's cache. The same commit makes the
same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.commands.environment import CHECKOUT
from tools.packages import msi
from tools.packages.agent_tree import PackageError


def main(arguments: Sequence[str] | None = None) -> int:
    """`tools/build_msi`: prints the path of what it built. Returns 1, with the reason, when it could not."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.sign_certificates is None) != (options.sign_key is None):
        parser.error("--sign-certificates and --sign-key go together")
    if options.sign_key is None and (options.sign_password_file or options.sign_timestamp):
        parser.error("there is nothing to sign with; --sign-key and --sign-certificates say what")
    signer = None
    if options.sign_key is not None:
        signer = msi.Signer(
            options.sign_certificates, options.sign_key, options.sign_password_file, options.sign_timestamp
        )
    try:
        print(msi.build(options.output, python_directory=options.python_dir, signer=signer))
    except (PackageError, OSError) as error:
        print(f"tools/build_msi: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/build_msi", description=__doc__)
    parser.add_argument("--output", type=Path, default=CHECKOUT / "dist", metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--python-dir",
        type=Path,
        metavar="DIR",
        help="an unpacked embeddable zip of python.org, for x64, instead of the one that the lock names",
    )
    signing = parser.add_argument_group("signing, with osslsigncode")
    signing.add_argument("--sign-certificates", type=Path, metavar="PEM", help="the signer's, and the chain's")
    signing.add_argument("--sign-key", type=Path, metavar="PEM", help="the private key")
    signing.add_argument("--sign-password-file", type=Path, metavar="FILE", help="holds the key's password")
    signing.add_argument("--sign-timestamp", metavar="URL", help="of a time-stamping authority (RFC 3161)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
