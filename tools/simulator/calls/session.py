"""Logging in and out. Source: ocaml/xapi/xapi_session.ml."""

from __future__ import annotations

import secrets
import time

from .. import errors
from ..state import Context
from ..values import now
from .table import call

SESSIONS_PER_ORIGINATOR = 500
"""Beyond this many, an originator's longest unused sessions are ended without a word (xapi_globs.ml)."""


@call("session.login_with_password")
def login_with_password(context: Context, uname: str, pwd: str, version: str, originator: str) -> str:
    """A new session. The version is ignored, as by xapi."""
    del version
    settings = context.state.settings
    right_name = secrets.compare_digest(uname.encode(), settings.username.encode())
    right_password = secrets.compare_digest(pwd.encode(), settings.password.encode())
    if not (right_name and right_password):
        time.sleep(settings.login_failure_delay)
        raise errors.ApiError("SESSION_AUTHENTICATION_FAILED", uname, "Authentication failure")
    database = context.database
    session = database.create(
        "session",
        this_host=context.state.host,
        last_active=now(),
        validation_time=now(),
        is_local_superuser=True,
        auth_user_name=uname,
        originator=originator,
    )
    records = database.records("session")
    mine = [ref for ref, record in records.items() if record["originator"] == originator]
    mine.sort(key=lambda ref: str(records[ref]["last_active"]))
    for ref in mine[:-SESSIONS_PER_ORIGINATOR]:
        _end(context, ref)
    return session


@call("session.logout", "session.local_logout")
def logout(context: Context) -> None:
    """End the caller's session."""
    _end(context, context.session)


def _end(context: Context, session: str) -> None:
    try:
        context.database.destroy("session", session)
    except errors.ApiError:
        # Somebody else ended it in the meantime.
        pass
