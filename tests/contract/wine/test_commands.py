"""What a host asks a Windows guest for: the driver and the dom0 plugin of this project, its agent, and an account."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from agent_protocol.messages import ADVERT, REPLIES
from agent_protocol.outcomes import Refused, Unsupported
from guest_agent import VERSION
from tests.contract.house import FIRST_PASSWORD, House
from tests.contract.nova_host import NovaHost

from .windows_guest import SERVICE, WindowsGuest

pytestmark = pytest.mark.services


def test_the_password_of_the_creation_is_the_administrators(home: House, created: WindowsGuest) -> None:
    assert created.accounts.of().opens(FIRST_PASSWORD)
    assert created.accounts.of().times == 1
    assert home.last_action() == ("set_admin_password", "succeeded", "")


def test_the_agent_runs_as_a_service_and_tells_about_itself(windows: WindowsGuest) -> None:
    assert windows.running.service_state(SERVICE) == "RUNNING"
    with windows.channel() as channel:
        advert = json.loads(channel.read(ADVERT) or b"")
    assert advert["version"] == VERSION
    assert windows.ask("info").data["boot_id"] == advert["boot_id"]


def test_version_and_features_in_the_clear(windows: WindowsGuest) -> None:
    with windows.channel() as channel:
        version, features = channel.ask("version"), channel.ask("features")
    assert (version["returncode"], version["message"]) == ("0", VERSION)
    assert {"version", "features", "keyinit", "password", "injectfile", "kmsactivate"} <= set(
        features["message"].split(",")
    )


def test_sealed_passwords(windows: WindowsGuest) -> None:
    for times, password in enumerate(("sealed Pass-word 1", "Größe-пароль-密 2", "x1-Y" + "z" * 123), start=1):
        windows.set_password(password)
        account = windows.accounts.of()
        assert account.opens(password)
        assert account.times == times


def test_legacy_passwords(windows: WindowsGuest) -> None:
    for password in ("legacy Pass-word 3", "größer-пароль 4"):
        windows.set_password(password, policy="legacy")
        assert windows.accounts.of().opens(password)


def test_a_password_from_an_existing_cloud(windows: WindowsGuest) -> None:
    with windows.channel() as channel:
        host = NovaHost(channel.store, str(windows.domid), poll=0.05, timeout=120)
        host.set_admin_password("legacy Pass-word 5")
        # That host never removes a reply.
        for name in channel.children(REPLIES):
            channel.store.remove(f"/local/domain/{windows.domid}/{REPLIES}/{name}")
    assert windows.accounts.of().opens("legacy Pass-word 5")


def test_a_password_that_nobody_could_log_on_with(windows: WindowsGuest) -> None:
    with pytest.raises(Refused) as refused:
        windows.set_password("x1-Y" + "z" * 124)
    assert refused.value.code == "password_policy"
    assert windows.accounts.of().times == 0


def test_the_policy_refuses(windows: WindowsGuest) -> None:
    windows.accounts.set_policy(minimum_length=10, complexity=True)
    for policy in ("sealed", "legacy"):
        for password in ("Short-1", "of lower case only"):
            with pytest.raises(Refused) as refused:
                windows.set_password(password, policy)
            assert refused.value.code == "password_policy"
            # Wine has no words for this error, as Windows has.
            assert "policy" in refused.value.message
    assert windows.accounts.of().times == 0
    windows.set_password("Long enough 1")
    assert windows.accounts.of().opens("Long enough 1")


def test_the_operator_hears_what_the_policy_says(home: House, windows: WindowsGuest) -> None:
    windows.accounts.set_policy(minimum_length=20)
    done = home.set_password("fifteen letters")
    assert done.status != 0
    assert "policy" in done.shown["message"]
    assert home.last_action() == ("set_admin_password", "refused", "password_policy")


def test_an_administrator_that_was_renamed(windows: WindowsGuest) -> None:
    windows.accounts.rename(500, "Größter Chef")
    for policy in ("sealed", "legacy"):
        windows.set_password(f"renamed Pass-word {policy}", policy)
        assert windows.accounts.of().opens(f"renamed Pass-word {policy}")


def test_another_user_and_nobody(windows: WindowsGuest) -> None:
    windows.ask("password", user="user", value="user's Pass-word 6")
    assert windows.accounts.of(1001).opens("user's Pass-word 6")
    with pytest.raises(Refused) as refused:
        windows.ask("password", user="nobody-here", value="long Pass-word 7")
    assert refused.value.code == "no_such_user"
    assert windows.accounts.of().times == 0


def test_a_password_that_expires_and_a_hash(windows: WindowsGuest) -> None:
    windows.ask("password", user="user", value="expiring Pass-word 8", expire=True)
    assert windows.accounts.of(1001).expired
    with pytest.raises(Unsupported) as unsupported:
        windows.ask("password", hash="$6$rounds=5000$salt$" + "x" * 86)
    assert unsupported.value.code == "hash_unsupported"


def test_a_password_is_made_in_the_guest(windows: WindowsGuest) -> None:
    windows.accounts.set_policy(minimum_length=30, complexity=True)
    key = rsa.generate_private_key(65537, 2048)
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    told = windows.ask("password_generate", ssh_rsa=line.decode()).data
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    password = key.decrypt(base64.b64decode(told["ciphertext"]), oaep).decode()
    assert told["user"] == "Administrator"
    assert len(password) >= 30
    assert windows.accounts.of().opens(password)


def test_files(windows: WindowsGuest) -> None:
    content = bytes(range(256)) * 400
    windows.put(r"C:\Some Where\große Datei.bin", content)
    assert windows.running.path(r"C:\Some Where\große Datei.bin").read_bytes() == content
    windows.put(r"C:\Some Where\große Datei.bin", b"another")
    assert windows.running.path(r"C:\Some Where\große Datei.bin").read_bytes() == b"another"
    for path in (r"C:\Some Where\NUL", r"\\server\share\file", "relative.txt", r"C:\a:b"):
        with pytest.raises(Refused) as refused:
            windows.put(path, b"content")
        assert refused.value.code == "bad_path"


def test_nothing_is_left_in_the_store(windows: WindowsGuest) -> None:
    windows.set_password("last Pass-word 9")
    with windows.channel() as channel:
        channel.assert_nothing_left()
