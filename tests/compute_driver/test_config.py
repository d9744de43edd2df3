from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from compute_driver import config

SECRET = "hunter2-in-a-file"


@pytest.fixture(autouse=True)
def configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """oslo.config's global object as it was, and no file of this machine's."""
    monkeypatch.delenv("XENWARD_CONFIG_FILE", raising=False)
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "no-such-default.conf")
    cfg.CONF.reset()
    yield
    cfg.CONF.reset()


@pytest.fixture
def unprivileged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_the_file_named_comes_before_the_environment_and_that_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = written(tmp_path / "named.conf", "[DEFAULT]\nhost = named\n")
    in_environment = written(tmp_path / "environment.conf", "[DEFAULT]\nhost = environment\n")
    default = written(tmp_path / "default.conf", "[DEFAULT]\nhost = default\n")
    monkeypatch.setattr(config, "DEFAULT_FILE", Path(default))
    assert config.load().host == "default"
    monkeypatch.setenv("XENWARD_CONFIG_FILE", in_environment)
    assert config.load().host == "environment"
    assert config.load(named).host == "named"


def test_without_a_file_the_defaults_hold() -> None:
    conf = config.load()
    assert (conf.concurrency_backend, conf.xenserver.username, conf.xenserver.timeout) == ("threading", "root", 60.0)
    assert (conf.agent.timeout, conf.agent.boot_timeout) == (30.0, 300.0)
    assert conf.database.connection is None


def test_the_test_programs_own_arguments_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["xenward", "--no-such-option"])
    config.load()


@pytest.mark.parametrize(
    "text",
    [
        "[DEFAULT]\nconcurrency_backend = fibres\n",
        "[agent]\ntimeout = soon\n",
        "[agent]\ntimeout = 0\n",
        "[xenserver]\ntimeout = -1\n",
        "[DEFAULT]\nhost = no host name\n",
        "no configuration at all\n",
    ],
)
def test_a_wrong_value_is_a_configuration_error(tmp_path: Path, text: str) -> None:
    with pytest.raises((cfg.Error, ValueError)) as caught:
        _read_everything(config.load(written(tmp_path / "bad.conf", f"[xenserver]\npassword = {SECRET}\n{text}")))
    assert SECRET not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(cfg.Error, match=r"gone\.conf"):
        config.load(str(tmp_path / "gone.conf"))


def _read_everything(conf: Any) -> None:
    assert conf.host and conf.concurrency_backend
    assert conf.agent.timeout and conf.agent.boot_timeout and conf.xenserver.timeout


def test_secrets_do_not_show_when_options_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import logging

    text = f"[xenserver]\npassword = {SECRET}\n[database]\nconnection = postgresql://u:{SECRET}@db/x\n"
    conf = config.load(written(tmp_path / "x.conf", text))
    caplog.set_level(logging.DEBUG)
    conf.log_opt_values(logging.getLogger("test"), logging.DEBUG)
    assert "xenserver.password" in caplog.text
    assert SECRET not in caplog.text


def test_the_state_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    state = tmp_path / "a" / "b"
    conf = config.load(written(tmp_path / "x.conf", f"[DEFAULT]\nstate_path = {state}\n"))
    assert config.state_path(conf) == state
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert config.state_path(conf) == state


def test_an_unprivileged_user_keeps_state_at_home(
    unprivileged: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert config.state_path(config.load()) == tmp_path / "home/.local/share/xenward"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert config.state_path(config.load()) == tmp_path / "data/xenward"


def test_the_database_is_sqlite_below_the_state_directory_unless_named(tmp_path: Path) -> None:
    text = f"[DEFAULT]\nstate_path = {tmp_path}\n"
    conf = config.load(written(tmp_path / "x.conf", text))
    assert config.database_url(conf) == f"sqlite:///{tmp_path}/xenward.sqlite"
    text += "[database]\nconnection = postgresql+psycopg://db/xenward\n"
    conf = config.load(written(tmp_path / "y.conf", text))
    assert config.database_url(conf) == "postgresql+psycopg://db/xenward"


def test_who_xenserver_is_can_be_told(tmp_path: Path) -> None:
    conf = config.load()
    assert (conf.xenserver.ca_file, conf.xenserver.fingerprint, conf.xenserver.allow_plain_http) == (None, [], False)
    text = (
        "[xenserver]\nurl = https://a,https://b\nfingerprint = AB:CD, EF\nca_file = /x.pem\nallow_plain_http = true\n"
    )
    conf = config.load(written(tmp_path / "x.conf", text))
    assert (conf.xenserver.url, conf.xenserver.fingerprint) == ("https://a,https://b", ["AB:CD", "EF"])
    assert (conf.xenserver.ca_file, conf.xenserver.allow_plain_http) == ("/x.pem", True)
