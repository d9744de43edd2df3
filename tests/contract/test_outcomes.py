"""Each thing that can go wrong has its own answer: at the terminal, in the audit trail, and in the guest itself."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

from agent_protocol.xenstore import StoreError

from .house import FIRST_PASSWORD, SECOND_PASSWORD, Done, House, house, standin


def ended(done: Done, outcome: str, code: str) -> None:
    """The command told this outcome, with its exit status."""
    status = {"refused": 3, "unsupported": 4, "busy": 5, "failed": 6, "unreachable": 7, "unknown": 8}[outcome]
    assert (done.status, done.shown["outcome"], done.shown["code"]) == (status, outcome, code), done


def test_an_unknown_instance_is_refused_and_recorded(home: House) -> None:
    ended(home.set_password(SECOND_PASSWORD, "nobody"), "refused", "instance_not_found")
    done = home.xenward("server", "show", "nobody")
    assert (done.status, done.shown) == (3, None)
    assert "instance_not_found" in done.stderr
    rows = home.xenward("server", "actions").shown
    assert [(row["target"], row["action"], row["code"]) for row in rows] == [
        ("nobody", "set_admin_password", "instance_not_found")
    ]


def test_a_wrong_xenserver_password_is_refused(home: House) -> None:
    instance = home.create()
    home.configure(xenserver={"password": "wrong"})
    ended(home.set_password(SECOND_PASSWORD), "refused", "xenserver_authentication_failed")
    assert home.last_action() == ("set_admin_password", "refused", "xenserver_authentication_failed")
    assert home.xenward("server", "show", "web").shown["power_state"] == "unknown"
    assert home.opens(instance, FIRST_PASSWORD)


def test_an_unreachable_xenserver_is_unreachable(home: House) -> None:
    home.create()
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        home.configure(xenserver={"url": f"http://127.0.0.1:{nobody_listens.getsockname()[1]}"})
        ended(home.set_password(SECOND_PASSWORD), "unreachable", "xenserver_unreachable")
    assert home.last_action() == ("set_admin_password", "unreachable", "xenserver_unreachable")


def test_the_guests_policy_refuses_in_its_own_words(home: House) -> None:
    instance = home.create()
    (home.guest(instance) / "etc/login.defs").write_text("PASS_MIN_LEN 30\n")
    done = home.set_password("too short for that")
    ended(done, "refused", "password_policy")
    assert "30" in done.shown["message"]
    assert home.last_action() == ("set_admin_password", "refused", "password_policy")
    assert home.opens(instance, FIRST_PASSWORD)


def test_a_killed_agent_is_unreachable_and_the_request_is_taken_back(home: House) -> None:
    instance = home.create()
    home.configure(agent={"timeout": "1"})
    os.kill(home.agent_pid(instance), signal.SIGKILL)
    ended(home.set_password(SECOND_PASSWORD), "unreachable", "agent_silent")
    assert home.last_action() == ("set_admin_password", "unreachable", "agent_silent")
    assert home.opens(instance, FIRST_PASSWORD)
    with home.store() as store:
        domain = f"/local/domain/{home.vm(instance)['domid']}"
        assert store.directory(f"{domain}/data/host") == []
        assert store.directory(f"{domain}/data/guest") == []


def test_an_agent_that_hangs_before_it_takes_the_request_never_carries_it_out(home: House) -> None:
    instance = home.create()
    home.configure(agent={"timeout": "1"})
    agent = home.agent_pid(instance)
    os.kill(agent, signal.SIGSTOP)
    ended(home.set_password(SECOND_PASSWORD), "unreachable", "agent_silent")
    os.kill(agent, signal.SIGCONT)
    home.configure(agent={"timeout": "20"})
    # It answers again, and what was taken back stays undone.
    third = "third Pass-word 3"
    assert home.set_password(third).status == 0
    assert home.opens(instance, third)


def test_a_guest_without_an_agent_leaves_nothing_behind(directory: Path) -> None:
    with house(directory, "--no-agent") as home:
        home.configure(agent={"boot_timeout": "1"})
        done = home.xenward("server", "create", "web")
        ended(done, "unreachable", "agent_no_answer")
        assert home.xenward("server", "list").shown[0]["vm_state"] == "error"
        steps = {row["step"]: row["outcome"] for row in home.actions() if row["step"]}
        assert steps["wait_for_agent"] == "unreachable"
        assert steps["undo"] == "succeeded"
        with home.session() as xenapi:
            assert [record for record in xenapi.VM.get_all_records().values() if not record["is_control_domain"]] == []
            assert xenapi.VDI.get_all() == []
        assert home.xenward("server", "delete", "web").status == 0


def test_an_agent_that_takes_the_password_and_hangs_is_unknown(directory: Path) -> None:
    with house(directory, *standin("takes-orders")) as home:
        home.configure(agent={"timeout": "1"})
        ended(home.xenward("server", "create", "web"), "unknown", "agent_no_answer")


def test_an_old_agent_that_does_not_answer_the_password_is_unknown(directory: Path) -> None:
    with house(directory, *standin("ignores")) as home:
        home.configure(agent={"timeout": "1"})
        ended(home.xenward("server", "create", "web"), "unknown", "agent_no_answer")


def test_an_old_agent_is_served_and_what_it_cannot_do_is_unsupported(directory: Path) -> None:
    with house(directory, *standin("old-style")) as home:
        instance = home.create()
        assert home.set_password(SECOND_PASSWORD).status == 0
        (directory / "file").write_bytes(b"x")
        put = ("server", "file", "put", "web", str(directory / "file"))
        assert home.xenward(*put, "/etc/file").status == 0
        ended(home.xenward(*put, "/etc/file", "--mode", "0600"), "unsupported", "file_mode_unsupported")
        ended(home.xenward(*put, "/etc/a,b"), "unsupported", "file_path_unsupported")
        assert home.actions(instance)[-1]["code"] == "file_path_unsupported"


@pytest.mark.parametrize(
    ("behaviour", "outcome", "code"),
    [("refuses-key", "refused", "bad_public_number"), ("garbage", "unreachable", "bad_reply")],
)
def test_a_hostile_agent_is_never_believed(directory: Path, behaviour: str, outcome: str, code: str) -> None:
    with house(directory, *standin(behaviour)) as home:
        ended(home.xenward("server", "create", "web"), outcome, code)
        with home.session() as xenapi:
            assert [record for record in xenapi.VM.get_all_records().values() if not record["is_control_domain"]] == []


def test_a_guest_that_reboots_during_the_request_gets_it_again(home: House) -> None:
    instance = home.create()
    os.kill(home.agent_pid(instance), signal.SIGSTOP)
    command = home.start(
        "server", "password", "set", "web", "--password-stdin", "-f", "json", stdin=SECOND_PASSWORD + "\n"
    )
    home.await_request(instance, "sealed")
    with home.session() as xenapi:
        xenapi.VM.hard_reboot(home.vm(instance)["ref"])
    done = home.end(command)
    assert (done.status, done.shown["outcome"]) == (0, "succeeded"), done
    assert home.opens(instance, SECOND_PASSWORD)


def test_a_guest_that_goes_down_while_it_sets_the_password_is_unknown(directory: Path) -> None:
    with house(directory, *standin("old-style")) as home:
        instance = home.create()
        home.configure(agent={"timeout": "3"})
        os.kill(home.agent_pid(instance), signal.SIGSTOP)
        command = home.start("server", "file", "put", "web", "-", "/etc/motd", "-f", "json", stdin="new")
        home.await_request(instance, "version")
        with home.session() as xenapi:
            xenapi.VM.hard_shutdown(home.vm(instance)["ref"])
        # A question only was under way, so nothing can have happened ...
        ended(home.end(command), "unreachable", "guest_absent")

    with house(directory, *standin("ignores")) as home:
        home.configure(agent={"timeout": "5"})
        command = home.start("server", "create", "again", "-f", "json")
        _await_order(home)
        with home.session() as xenapi:
            (ref,) = [ref for ref, vm in xenapi.VM.get_all_records().items() if not vm["is_control_domain"]]
            xenapi.VM.hard_shutdown(ref)
        # ... but here the password itself was.
        ended(home.end(command), "unknown", "guest_restarted")


def _await_order(home: House) -> None:
    """Wait until a password stands in the only guest's XenStore."""
    with home.store() as store:
        store.watch("/local/domain", "domains")
        while store.next_event(30.0):
            for domain in store.directory("/local/domain"):
                path = f"/local/domain/{domain}/data/host"
                try:
                    values = [store.read(f"{path}/{child}") for child in store.directory(path)]
                except StoreError:
                    continue
                if any(b'"password"' in value for value in values):
                    return
    raise AssertionError("no password request appeared")


def test_a_missing_plugin_is_unsupported(home: House) -> None:
    home.create()
    (home.simulator.plugins / "xenward").unlink()
    ended(home.set_password(SECOND_PASSWORD), "unsupported", "plugin_missing")


def test_a_broken_plugin_is_unknown_unless_only_a_question_was_asked(home: House) -> None:
    home.create()
    plugin = home.simulator.plugins / "xenward"
    plugin.rename(plugin.with_name("good"))
    # It answers questions, and dies of orders.
    plugin.write_text('#!/bin/sh\ncase "$1" in *exchange*) exit 1 ;; esac\nexec "${0%/*}/good" "$1"\n')
    plugin.chmod(0o755)
    ended(home.set_password(SECOND_PASSWORD), "unknown", "plugin_died")


def test_a_plugin_that_was_always_broken_is_unreachable(home: House) -> None:
    (home.simulator.plugins / "xenward").write_text("#!/bin/sh\nexit 1\n")
    ended(home.xenward("server", "create", "web"), "unreachable", "plugin_died")


def test_a_stopped_instance_refuses_what_needs_it_running(home: House) -> None:
    home.create()
    assert home.xenward("server", "stop", "web").status == 0
    ended(home.set_password(SECOND_PASSWORD), "refused", "instance_state")
    assert home.last_action() == ("set_admin_password", "refused", "instance_state")


def test_two_orders_at_once_one_is_busy(home: House) -> None:
    instance = home.create()
    os.kill(home.agent_pid(instance), signal.SIGSTOP)
    first = home.start("server", "password", "set", "web", "--password-stdin", "-f", "json", stdin=SECOND_PASSWORD)
    home.await_request(instance, "sealed")
    ended(home.set_password("third Pass-word 3"), "busy", "instance_busy")
    os.kill(home.agent_pid(instance), signal.SIGCONT)
    assert home.end(first).status == 0
    assert home.opens(instance, SECOND_PASSWORD)


def test_over_the_old_protocol_a_file_that_does_not_fit_is_refused_with_the_limit(home: House, directory: Path) -> None:
    home.configure(agent={"protocol": "legacy"})
    home.create()
    assert home.last_action() == ("set_admin_password", "succeeded", "legacy_protocol")
    (directory / "large").write_bytes(bytes(4000))
    done = home.xenward("server", "file", "put", "web", str(directory / "large"), "/etc/large")
    ended(done, "refused", "request_too_large")
    assert "2000" in done.shown["message"]


def test_another_agent_is_refused_until_it_is_trusted(home: House) -> None:
    instance = home.create()
    identity = home.guest(instance) / "var/lib/xenward/identity.json"
    identity.unlink()
    assert home.xenward("server", "reboot", "web", "--hard").status == 0
    ended(home.set_password(SECOND_PASSWORD), "refused", "identity_changed")
    assert home.opens(instance, FIRST_PASSWORD)
    before = home.xenward("agent", "show", "web").shown["fingerprint"]
    trusted = home.xenward("agent", "trust", "web")
    assert (trusted.status, trusted.shown["fingerprint"] != before) == (0, True)
    assert home.xenward("agent", "show", "web").shown["fingerprint"] == trusted.shown["fingerprint"]
    assert home.set_password(SECOND_PASSWORD).status == 0
    assert home.opens(instance, SECOND_PASSWORD)


def test_a_bad_password_is_refused_before_anything_is_asked(home: House) -> None:
    home.create()
    ended(home.set_password("with\tcontrol"), "refused", "bad_password")
    ended(home.set_password("x" * 257), "refused", "bad_password")


def test_a_command_that_was_killed_leaves_an_honest_trail(home: House) -> None:
    instance = home.create()
    os.kill(home.agent_pid(instance), signal.SIGSTOP)
    command = home.start("server", "password", "set", "web", "--password-stdin", "-f", "json", stdin=SECOND_PASSWORD)
    home.await_request(instance, "sealed")
    command.kill()
    command.wait()
    os.kill(home.agent_pid(instance), signal.SIGCONT)
    assert home.last_action() == ("set_admin_password", "unknown", "service_ended")
    # Its turn was given back, so the instance can be worked with.
    assert home.set_password(SECOND_PASSWORD).status == 0


def test_a_missing_configuration_file_is_told(home: House) -> None:
    shutil.move(home.conf, home.conf.with_suffix(".gone"))
    done = home.xenward("server", "list")
    assert done.status == 1
    assert str(home.conf) in done.stderr
