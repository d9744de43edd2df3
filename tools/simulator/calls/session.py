"""Logging in and out. Source: ocaml/xapi/xapi_session.ml."""

from __future__ import annotations

import dataclasses
import secrets
import time
import uuid as uuids

from .. import errors, state_directory
from ..state import Context
from ..values import now
from .table import call

SESSIONS_PER_ORIGINATOR = 500
"""Beyond this many, an originator's longest unused sessions are ended without a word (xapi_globs.ml)."""


LOCAL_LOGIN = "session.slave_local_login_with_password"

LOCAL_CALLS = frozenset(
    {
        "host.emergency_reset_server_certificate",
        "host.is_in_emergency_mode",
        "host.list_methods",
        "pool.emergency_reset_master",
        "pool.emergency_transition_to_master",
        "session.local_logout",
    }
)
"""What a session of the host itself may do, which has no database behind it."""


@call("session.login_with_password")
def login_with_password(context: Context, uname: str, pwd: str, version: str, originator: str) -> str:
    """A new session. The version is ignored, as by xapi."""
    del version
    _authenticate(context, uname, pwd)
    return new_session(context, uname, originator)


def _authenticate(context: Context, name: str, password: str) -> None:
    settings = context.state.settings
    right_name = secrets.compare_digest(name.encode(), settings.username.encode())
    right_password = secrets.compare_digest(password.encode(), settings.password.encode())
    if not (right_name and right_password):
        time.sleep(settings.login_failure_delay)
        raise errors.ApiError("SESSION_AUTHENTICATION_FAILED", name, "Authentication failure")


@call(LOCAL_LOGIN)
def slave_local_login_with_password(context: Context, uname: str, pwd: str) -> str:
    """A session of the host itself, for when there is no coordinator: good for LOCAL_CALLS only."""
    _authenticate(context, uname, pwd)
    session = f"OpaqueRef:{uuids.uuid4()}"
    context.host.local_sessions.add(session)
    return session


def new_session(context: Context, name: str, originator: str) -> str:
    """A session of the host's superuser; its reference. An originator's oldest ones end when it has too many."""
    database = context.database
    session = database.create(
        "session",
        this_host=context.host.ref,
        last_active=now(),
        validation_time=now(),
        is_local_superuser=True,
        auth_user_name=name,
        originator=originator,
    )
    records = database.snapshots("session")
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
    context.host.local_sessions.discard(session)
    try:
        context.database.destroy("session", session)
    except errors.ApiError:
        # Somebody else ended it in the meantime.
        pass


@call("session.change_password")
def change_password(context: Context, old_pwd: str, new_pwd: str) -> None:
    """Give the host's superuser another password. Sessions stay valid."""
    state = context.state
    if not secrets.compare_digest(old_pwd.encode(), state.settings.password.encode()):
        raise errors.ApiError("SESSION_AUTHENTICATION_FAILED", state.settings.username, "Authentication failure")
    if not new_pwd:
        raise errors.ApiError("CHANGE_PASSWORD_REJECTED", "Authentication information cannot be recovered")
    state_directory.change_password(state.settings.state, old_pwd, new_pwd)
    state.settings = dataclasses.replace(state.settings, password=new_pwd)


@call("session.get_all_subject_identifiers")
def get_all_subject_identifiers(context: Context) -> list[str]:
    """The users of an external directory who are logged in."""
    sessions = context.database.snapshots("session").values()
    return sorted({record["auth_user_sid"] for record in sessions if record["auth_user_sid"]})


@call("session.logout_subject_identifier")
def logout_subject_identifier(context: Context, subject_identifier: str) -> None:
    """End all sessions of a user of an external directory, but the caller's own."""
    for ref, record in context.database.snapshots("session").items():
        if subject_identifier and record["auth_user_sid"] == subject_identifier and ref != context.session:
            _end(context, ref)
