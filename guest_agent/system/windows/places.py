"""Where the agent keeps its files in Windows."""

from __future__ import annotations

import sys

from .errors import failures

if sys.platform == "win32":
    from .known_folders_win32 import program_data

    # As the system tells it: whoever starts a program chooses its environment.
    PROGRAM_DATA = program_data()
else:
    PROGRAM_DATA = "C:\\ProgramData"

DIRECTORY = PROGRAM_DATA + "\\xenward"

CONFIGURATION_FILE = DIRECTORY + "\\agent.conf"

STATE_DIRECTORY = DIRECTORY + "\\state"

LOG_DIRECTORY = DIRECTORY + "\\log"

LOG_FILE = LOG_DIRECTORY + "\\agent.log"


def make_directories() -> None:
    """Make those directories that are missing, and have all of them for SYSTEM and the administrators alone.

    Refused (`unsafe_directory`) when somebody else has made one of them, Failed when one cannot be made.
    """
    from .private import PrivateFiles
    from .win32 import windows

    real = windows()
    with failures():
        private = PrivateFiles(real.files, real.accounts.own_sid())
    for path in (DIRECTORY, STATE_DIRECTORY, LOG_DIRECTORY):
        private.secure_directory(path)
