"""Windows, from Windows 10 and Windows Server 2016 on.

Loads everywhere: what calls Windows is in the modules `*_win32`, which are loaded when they are needed.
"""

from __future__ import annotations

from .system import WindowsSystem

__all__ = ["WindowsSystem"]
