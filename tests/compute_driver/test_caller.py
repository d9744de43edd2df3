"""Secrets from the caller to the guest's agent, across a bus and a service of which none can read them."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent_protocol.messages import Password
from agent_protocol.outcomes import Failed, Outcome, Refused, Unknown, Unreachable, Unsuccessful, Unsupported
from agent_protocol.sealed import SealedResult
from compute_driver.context import RequestContext
from compute_driver.db.repository import Repository
from compute_driver.driver import InjectedFile
from compute_driver.manager import ComputeManager
from compute_driver.memory import RepositoryMemory

from .bus import Switch, serving
from .sealed_agent import EXCHANGED, GENERATED, UNSIGNED, Forgery, SealedAgent, Told
from .sealed_driver import SealedDriver

CONTEXT = RequestContext("req-1", "ada")
SECRET = "hunter2 Pass-word"
CONTENT = b"hunter2 in a file " * 500
FILE = InjectedFile("/etc/motd", CONTENT, 0o640, "ada:users")
KEYS = ["ssh-ed25519 AAAA ada"]
NEW: dict[str, Any] = {"display_name": "web", "memory_mb": 64, "vcpus": 1, "root_gb": 1, "admin_password": None}
HOURS = 5 * 3600


class Wire:
    """Stands between the client and the bus, and keeps all that crosses, in both directions."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.crossed: list[Any] = []
        self.methods: list[str] = []
        self.before: Callable[[str], None] = lambda method: None

    def order(self, context: RequestContext, method: str, **arguments: Any) -> Any:
        return self._call(self.client.order, context, method, arguments)

    def ask(self, context: RequestContext, method: str, **arguments: Any) -> Any:
        return self._call(self.client.ask, context, method, arguments)

    def _call(self, call: Any, context: RequestContext, method: str, arguments: dict[str, Any]) -> Any:
        self.before(method)
        self.methods.append(method)
        self.crossed.append((context.to_dict(), method, arguments))
        try:
            answer = call(context, method, **arguments)
        except Unsuccessful as error:
            self.crossed.append((repr(error), vars(error)))
            raise
        self.crossed.append(answer)
        return answer


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Switch]]:
    with serving(tmp_path_factory.mktemp("bus")) as it:
        yield it


@pytest.fixture
def driver(bus: tuple[Any, Switch], repository: Repository) -> SealedDriver:
    it = SealedDriver(RepositoryMemory(repository))
    bus[1].manager = ComputeManager(repository, it, "here")
    return it


class Direct:
    """The bus without its queues, whose polling takes most of a call's time: what crosses is JSON here as well."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def prepare(self, **_: Any) -> Direct:
        return self

    def call(self, context: dict[str, Any], method: str, **arguments: Any) -> Any:
        context, arguments = json.loads(json.dumps([context, arguments]))
        return json.loads(json.dumps(getattr(self._endpoint, method)(context, **arguments)))


@pytest.fixture
def bus_wire(bus: tuple[Any, Switch], driver: SealedDriver) -> Wire:
    """To an instance `web` whose agent is known, over the bus itself."""
    from compute_driver import rpc

    manager = bus[1].manager
    instance = manager.build_and_run_instance(CONTEXT, **NEW)
    assert manager.get_agent(CONTEXT, instance.uuid, None)
    driver.calls.clear()
    driver.plugin.functions.clear()
    return Wire(rpc.ComputeClient(bus[0], "here", timeout=10.0, order_timeout=10.0))


@pytest.fixture
def wire(bus: tuple[Any, Switch], bus_wire: Wire) -> Wire:
    """Likewise, without the bus's queues."""
    from compute_driver import rpc

    bus_wire.client._client = Direct(rpc.ComputeEndpoint(bus[1].manager))
    return bus_wire


def calling(wire: Wire) -> Any:
    from compute_driver.caller import Caller

    client: Any = wire
    return Caller(client, CONTEXT)


@pytest.fixture
def caller(wire: Wire) -> Any:
    return calling(wire)


OPERATIONS: dict[str, Callable[[Any], object]] = {
    "set_admin_password": lambda caller: caller.set_password("web", Password(SECRET)),
    "inject_file": lambda caller: caller.put_file("web", FILE),
    "add_ssh_keys": lambda caller: caller.add_ssh_keys("web", KEYS),
    "generate_admin_password": lambda caller: caller.generate_password("web"),
}
every_operation = pytest.mark.parametrize("action", OPERATIONS)


def error_of(operation: Callable[[], object]) -> Unsuccessful:
    with pytest.raises(Unsuccessful) as caught:
        operation()
    assert "hunter2" not in repr(caught.value) + str(caught.value) + repr(vars(caught.value))
    return caught.value


def rows(repository: Repository) -> list[tuple[str, str, str]]:
    """Action, outcome and code of everything after the instance's creation."""
    found = [row for row in repository.list_actions() if row.action != "create"]
    return [(row.action, str(row.outcome), row.code) for row in found]


# The way there and back


@every_operation
def test_it_is_one_question_and_one_order_and_is_recorded(
    caller: Any, wire: Wire, driver: SealedDriver, repository: Repository, action: str
) -> None:
    OPERATIONS[action](caller)
    assert wire.methods == ["get_agent", "send_sealed"]
    assert [call[0] for call in driver.calls] == ["send_sealed"]
    assert set(driver.plugin.functions) == {"exchange"}
    assert rows(repository) == [(action, "succeeded", "")]


def test_the_agent_gets_what_was_meant(caller: Any, driver: SealedDriver) -> None:
    caller.set_password("web", Password(SECRET))
    caller.put_file("web", FILE)
    caller.add_ssh_keys("web", KEYS)
    (_, password), (_, file), (_, keys) = driver.guest.done
    assert [name for name, _ in driver.guest.done] == ["password", "file_put", "ssh_keys"]
    assert password == {"value": SECRET}
    assert keys == {"add": KEYS}
    assert (file["path"], file["mode"], file["owner"]) == ("/etc/motd", "0640", "ada:users")
    assert base64.b64decode(file["content"]) == CONTENT


def test_neither_service_nor_database_nor_log_nor_bus_holds_a_secret(
    bus_wire: Wire, driver: SealedDriver, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    wire, caller = bus_wire, calling(bus_wire)
    for operation in OPERATIONS.values():
        operation(caller)
    driver.guest.results["password"] = SealedResult(Outcome.FAILED, "broken", f"chpasswd: {SECRET}")
    with pytest.raises(Failed):
        caller.set_password("web", Password(SECRET))
    service_saw = repr(driver.calls) + repr(driver.plugin.calls)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    everything = repr(wire.crossed) + service_saw + caplog.text + repr(stored)
    encoded = base64.b64encode(SECRET.encode()).decode()[:16], base64.b64encode(CONTENT).decode()[:16]
    for secret in ("hunter2", "aHVudGVy", GENERATED, *encoded, "chpasswd"):
        assert secret not in everything
    # It did go this way, in boxes.
    assert wire.methods.count("send_sealed") == 5
    assert len(driver.guest.done) == 4
    assert "set_admin_password" in caplog.text


def test_the_password_that_the_guest_made_is_told_to_the_caller_alone(caller: Any, driver: SealedDriver) -> None:
    assert caller.generate_password("web") == GENERATED
    ((name, value),) = driver.guest.done
    assert (name, list(value)) == ("password_generate", ["hpke"])
    # Each time for a key of its own.
    caller.generate_password("web")
    assert driver.guest.done[1] != driver.guest.done[0]


def test_the_password_that_the_guest_made_for_an_rsa_key_is_for_its_owner_alone(
    caller: Any, driver: SealedDriver
) -> None:
    private = rsa.generate_private_key(65537, 2048)
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    made = caller.generate_password_for_rsa("web", [public])
    assert driver.guest.done == [("password_generate", {"ssh_rsa": public})]
    assert set(made) == {"user", "ciphertext"}
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    assert private.decrypt(base64.b64decode(made["ciphertext"]), oaep) == GENERATED.encode()
    for keys in ([], [public, public]):
        assert error_of(lambda keys=keys: caller.generate_password_for_rsa("web", keys)).code == "bad_key"
    assert len(driver.guest.done) == 1


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"user": "root"},
        {"user": 7, "ciphertext": "AAAA"},
        {"user": "root", "ciphertext": 7},
        {"user": "root", "ciphertext": ""},
        {"user": None, "ciphertext": None},
    ],
)
def test_a_made_password_that_is_none_is_unknown(caller: Any, driver: SealedDriver, data: dict[str, Any]) -> None:
    driver.guest.results["password_generate"] = SealedResult(Outcome.SUCCEEDED, data=data)
    for operation in (
        lambda: caller.generate_password("web"),
        lambda: caller.generate_password_for_rsa("web", ["ssh-rsa AAAA"]),
    ):
        error = error_of(operation)
        assert (type(error), error.code) == (Unknown, "bad_reply")


@pytest.mark.parametrize("box", ["not base64!", "AAAA", base64.b64encode(bytes(64)).decode()])
def test_a_made_password_that_does_not_open_is_unknown(caller: Any, driver: SealedDriver, box: str) -> None:
    data = {"user": "root", "ciphertext": box}
    driver.guest.results["password_generate"] = SealedResult(Outcome.SUCCEEDED, data=data)
    assert error_of(lambda: caller.generate_password("web")).code == "bad_reply"


def test_a_made_password_that_would_play_tricks_on_a_terminal_is_unknown(
    caller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.compute_driver.sealed_agent.GENERATED", "\x1b]0;hunter2\a")
    assert error_of(lambda: caller.generate_password("web")).code == "bad_reply"


# What the agent, or somebody else, says


@every_operation
@pytest.mark.parametrize("outcome", [o for o in Outcome if o not in (Outcome.SUCCEEDED, Outcome.UNREACHABLE)])
def test_the_agents_own_words_are_for_the_caller(
    caller: Any, wire: Wire, driver: SealedDriver, repository: Repository, action: str, outcome: Outcome
) -> None:
    for name in ("password", "file_put", "ssh_keys", "password_generate"):
        driver.guest.results[name] = SealedResult(outcome, "some_code", "some words")
    error = error_of(lambda: OPERATIONS[action](caller))
    assert (error.outcome, error.code, error.message) == (outcome, "some_code", "some words")
    assert rows(repository) == [(action, str(outcome), "some_code")]
    assert "some words" not in repr(wire.crossed)


@pytest.mark.parametrize("forgery", UNSIGNED.values(), ids=UNSIGNED)
def test_a_reply_without_a_receipt_is_never_believed(
    caller: Any, driver: SealedDriver, repository: Repository, forgery: Forgery
) -> None:
    driver.plugin.forge = forgery
    error = error_of(lambda: caller.set_password("web", Password(SECRET)))
    assert (type(error), error.code) == (Unknown, "unsigned_reply")
    assert rows(repository) == [("set_admin_password", "unknown", "unsigned_reply")]


@pytest.mark.parametrize("forgery", EXCHANGED.values(), ids=EXCHANGED)
def test_a_box_that_is_not_what_was_signed_is_never_a_success(
    caller: Any, driver: SealedDriver, forgery: Forgery
) -> None:
    driver.plugin.forge = forgery
    error = error_of(lambda: caller.set_password("web", Password(SECRET)))
    assert (type(error), error.code) == (Unknown, "bad_reply")


@pytest.mark.parametrize("forgery", UNSIGNED.values(), ids=UNSIGNED)
def test_a_service_that_claims_a_success_is_not_believed_either(
    caller: Any, wire: Wire, driver: SealedDriver, forgery: Forgery, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = wire.order

    def order(context: RequestContext, method: str, **arguments: Any) -> Any:
        told = real(context, method, **arguments)
        reply = forgery(driver.guest, arguments["request_id"], Told(told["value"], told["box"]))
        return {"outcome": "succeeded", "code": "", "value": reply.value, "box": reply.box}

    monkeypatch.setattr(wire, "order", order)
    error = error_of(lambda: caller.set_password("web", Password(SECRET)))
    assert (type(error), error.code) == (Unknown, "unsigned_reply")


# Keys and clocks


@every_operation
def test_a_key_that_the_agent_lost_is_replaced_and_the_command_sent_again(
    caller: Any, wire: Wire, driver: SealedDriver, repository: Repository, action: str
) -> None:
    driver.guest.restart()
    OPERATIONS[action](caller)
    assert wire.methods == ["get_agent", "send_sealed", "send_sealed"]
    assert rows(repository) == [(action, "refused", "unknown_key"), (action, "succeeded", "")]
    assert len(set(driver.guest.ids)) == 2
    assert len(driver.guest.done) == 1
    # The service has learnt from it as well.
    wire.methods.clear()
    OPERATIONS[action](caller)
    assert wire.methods == ["get_agent", "send_sealed"]


@pytest.mark.parametrize("ahead", [HOURS, -HOURS])
def test_another_idea_of_the_time_is_learnt(
    caller: Any, driver: SealedDriver, repository: Repository, ahead: int
) -> None:
    driver.guest.ahead = ahead
    caller.set_password("web", Password(SECRET))
    caller.set_password("web", Password(SECRET))
    expired = [("set_admin_password", "refused", "expired")] if ahead > 0 else []
    assert rows(repository) == [*expired, *[("set_admin_password", "succeeded", "")] * 2]


@pytest.mark.parametrize("code", ["unknown_key", "expired"])
def test_three_times_is_enough(caller: Any, wire: Wire, driver: SealedDriver, code: str) -> None:
    def worse(method: str) -> None:
        if method != "send_sealed":
            return
        if code == "expired":
            driver.guest.ahead += HOURS
        else:
            driver.guest.restart()

    wire.before = worse
    error = error_of(lambda: caller.set_password("web", Password(SECRET)))
    assert (type(error), error.code) == (Refused, code)
    assert wire.methods == ["get_agent", *["send_sealed"] * 3]
    assert driver.guest.done == []


# A guest that restarts


def gone(driver: SealedDriver) -> Callable[[dict[str, Any]], Any]:
    def answer(request: dict[str, Any]) -> Any:
        driver.guest.restart()
        return [{"id": request["id"], "delivery": "gone"}]

    return answer


@every_operation
def test_a_guest_that_restarts_gets_it_sealed_anew(
    caller: Any, wire: Wire, driver: SealedDriver, repository: Repository, action: str
) -> None:
    driver.plugin.say("sealed", gone(driver))
    OPERATIONS[action](caller)
    assert wire.methods == ["get_agent", "send_sealed", "get_agent", "send_sealed"]
    assert rows(repository) == [(action, "unknown", "guest_restarted"), (action, "succeeded", "")]
    assert len(driver.guest.done) == 1


def test_one_that_restarts_again_leaves_it_unknown(caller: Any, wire: Wire, driver: SealedDriver) -> None:
    driver.plugin.say("sealed", gone(driver), driver.plugin._good, gone(driver))
    error = error_of(lambda: caller.set_password("web", Password(SECRET)))
    assert (type(error), error.code) == (Unknown, "guest_restarted")
    assert wire.methods.count("send_sealed") == 2


@pytest.mark.parametrize("after", ["refused", "withdrawn"])
def test_after_a_restart_no_end_but_success_is_certain(caller: Any, driver: SealedDriver, after: str) -> None:
    # The first attempt may have been carried out before the guest went.
    driver.plugin.say("sealed", gone(driver), driver.plugin._good, *(["withdrawn"] if after == "withdrawn" else []))
    driver.guest.results["password"] = SealedResult(Outcome.REFUSED, "policy", "no")
    error = error_of(lambda: caller.set_password("web", Password(SECRET)))
    assert (type(error), error.code) == (Unknown, "guest_restarted")


# Agents that only know the old protocol, or were never met


@pytest.mark.parametrize("met", [True, False])
def test_the_service_speaks_for_those_who_cannot_be_sealed_to(
    caller: Any, wire: Wire, driver: SealedDriver, repository: Repository, met: bool
) -> None:
    wire.order(CONTEXT, "terminate_instance", target="web")
    if met:
        driver.plugin.agent = None
        wire.order(CONTEXT, "build_and_run_instance", **NEW, injected_files=[], ssh_keys=[])
    else:
        repository.create_instance(uuid="uuid-web", display_name="web", host="here", memory_mb=64, vcpus=1, root_gb=1)
        repository.end_task("uuid-web", vm_state="active")
    for action, method in (("set_admin_password", "order"), ("inject_file", "order"), ("add_ssh_keys", "order")):
        wire.methods.clear()
        if not met:
            repository.save_agent("uuid-web", version="", features=[], protocol="legacy")
        if action == "inject_file":
            caller.put_file("web", InjectedFile("/etc/motd", b"short"))
        else:
            OPERATIONS[action](caller)
        assert wire.methods == ["get_agent", action], method
    done = [row for row in rows(repository) if row[0] in OPERATIONS]
    code = "legacy_protocol" if met else ""
    assert done == [(action, "succeeded", code) for action in ("set_admin_password", "inject_file", "add_ssh_keys")]
    if met:
        assert driver.plugin.passwords == [SECRET]
    else:
        # The service met the agent, and sealed.
        assert [name for name, _ in driver.guest.done] == ["password", "file_put", "ssh_keys"]


def test_an_agent_that_was_met_by_the_service_is_sealed_to_from_then_on(
    caller: Any, wire: Wire, repository: Repository
) -> None:
    (instance,) = repository.list_instances()
    repository.save_agent(instance.uuid, version="", features=[], protocol="legacy")
    for _ in range(2):
        caller.set_password("web", Password(SECRET))
    assert wire.methods == ["get_agent", "set_admin_password", "get_agent", "send_sealed"]


def test_nobody_but_the_guest_makes_its_passwords(caller: Any, wire: Wire, repository: Repository) -> None:
    (instance,) = repository.list_instances()
    repository.save_agent(instance.uuid, version="", features=[], protocol="legacy")
    for operation in (
        lambda: caller.generate_password("web"),
        lambda: caller.generate_password_for_rsa("web", ["ssh-rsa AAAA"]),
    ):
        error = error_of(operation)
        assert (type(error), error.code) == (Unsupported, "agent_not_sealed")
    assert wire.methods == ["get_agent"] * 2


@every_operation
def test_another_agent_in_the_guest_gets_nothing_until_it_is_trusted(
    caller: Any, wire: Wire, driver: SealedDriver, repository: Repository, action: str
) -> None:
    other = SealedAgent()
    driver.guest = driver.plugin.agent = other
    error = error_of(lambda: OPERATIONS[action](caller))
    assert (type(error), error.code) == (Refused, "identity_changed")
    assert other.done == []
    wire.order(CONTEXT, "trust_agent", target="web")
    OPERATIONS[action](caller)
    assert len(other.done) == 1
    assert rows(repository) == [
        (action, "refused", "identity_changed"),
        ("trust_agent", "succeeded", ""),
        (action, "succeeded", ""),
    ]


@every_operation
def test_an_instance_that_is_not_there_is_refused_and_recorded(
    caller: Any, wire: Wire, repository: Repository, action: str
) -> None:
    wire.order(CONTEXT, "terminate_instance", target="web")
    assert error_of(lambda: OPERATIONS[action](caller)).code == "instance_not_found"
    assert rows(repository)[1:] == [(action, "refused", "instance_not_found")]


def test_what_the_service_tells_of_an_agent_must_make_sense(
    caller: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "ask", lambda *_, **__: {"identity": "AAAA"})
    assert error_of(lambda: caller.set_password("web", Password(SECRET))).code == "bad_agent"
    assert "send_sealed" not in wire.methods


def test_a_service_that_is_away_gets_nothing(caller: Any, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise Unreachable("service_unreachable", "away")

    monkeypatch.setattr(wire, "ask", away)
    assert error_of(lambda: caller.set_password("web", Password(SECRET))).code == "service_unreachable"
    assert json.dumps(wire.methods) == "[]"
