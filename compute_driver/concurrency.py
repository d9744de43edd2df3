"""How a process runs many requests together: decided once, at its edge, before anything else is imported.

Everything below this line of the house works in native and in green threads alike and never asks which they are.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, cast


def set_up(backend: str) -> None:
    """Prepare the process. backend: `threading` or `eventlet`.

    Call it before oslo.messaging is imported: that loads the eventlet backend by itself otherwise.
    """
    if backend == "eventlet":
        # It warns of its own age at each import.
        warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
        import eventlet

        eventlet.monkey_patch()
    else:
        # Libraries below oslo.messaging import eventlet wherever it is installed, if only to look whether it is
        # active. Half patched is worse than either: here the import fails, as it does in current Nova.
        sys.modules["eventlet"] = cast(Any, None)
    from oslo_service import backend as oslo_backend

    kind = oslo_backend.BackendType.EVENTLET if backend == "eventlet" else oslo_backend.BackendType.THREADING
    oslo_backend.init_backend(kind)
