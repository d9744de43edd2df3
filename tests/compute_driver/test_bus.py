"""The bus over RabbitMQ: which queues it has, whom it trusts, and what becomes of calls when the broker goes away."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import amqp
import pytest

from agent_protocol.outcomes import Refused, Unreachable, Unsuccessful
from compute_driver import bus, concurrency, config
from tools.labs.services import RabbitMQ, private_rabbitmq
from tools.labs.services.authority import Authority

SECONDS = 60
"""How long a test waits for what must happen."""


@pytest.fixture(autouse=True, scope="module")
def threads() -> Iterator[None]:
    """Native threads, decided before anything imports oslo.messaging; eventlet can be imported again afterwards."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "eventlet", None)
        concurrency.set_up("threading")
        yield


@contextmanager
def configured(directory: Path, url: str, **settings: object) -> Iterator[Any]:
    """oslo.config's one global object with this configuration, and as it was before afterwards."""
    groups = {"bus": [], bus.GROUP: []}
    for name, value in settings.items():
        groups["bus" if name.startswith("allow") else bus.GROUP].append(f"{name} = {value}")
    lines = ["[DEFAULT]", "host = here", f"state_path = {directory}", f"transport_url = {url}"]
    for group, options in groups.items():
        lines += [f"[{group}]", *options]
    file = directory / "bus.conf"
    file.write_text("\n".join(lines) + "\n")
    conf = config.load(str(file))
    try:
        yield conf
    finally:
        conf.reset()
        for name in (*bus.DEFAULTS, "rabbit_quorum_queue"):
            if bus.GROUP in conf:
                conf.clear_default(name, group=bus.GROUP)
        if "transport_url" in conf:
            conf.clear_default("transport_url")


def refusal(directory: Path, url: str, **settings: object) -> Unsuccessful:
    """What the configuration, or the broker, ends in before anything is sent."""
    with configured(directory, url, **settings) as conf, pytest.raises(Unsuccessful) as caught:
        bus.require_broker(bus.transport(conf))
    return caught.value


class Endpoint:
    """Counts how often each order is carried out."""

    def __init__(self) -> None:
        import oslo_messaging

        self.target = oslo_messaging.Target(version="1.0")
        self.done: Counter[str] = Counter()
        self._guard = threading.Lock()

    def order(self, _context: object, *, name: str, seconds: float) -> str:
        with self._guard:
            self.done[name] += 1
        time.sleep(seconds)
        return name


@contextmanager
def served(transport: Any, endpoint: Endpoint) -> Iterator[Any]:
    """A server of the endpoint on this transport; gives a client of it."""
    import oslo_messaging

    target = oslo_messaging.Target(exchange="xenward", topic="compute", server="here", version="1.0")
    access = oslo_messaging.DefaultRPCAccessPolicy
    server = oslo_messaging.get_rpc_server(transport, target, [endpoint], access_policy=access)
    server.start()
    try:
        yield oslo_messaging.get_rpc_client(transport, target)
    finally:
        server.stop()
        server.wait()
        transport.cleanup()


def call(client: Any, name: str, seconds: float = 0.0, timeout: float = 20.0) -> str:
    """What rpc.ComputeClient does for an order: one attempt, and the broker says when no queue is there."""
    import oslo_messaging

    options = oslo_messaging.TransportOptions(at_least_once=True)
    return str(
        client.prepare(timeout=timeout, retry=0, transport_options=options).call(
            {}, "order", name=name, seconds=seconds
        )
    )


@pytest.mark.parametrize("settings", [{"ssl": "true"}, {"ssl": "true", "ssl_ca_file": ""}])
def test_tls_that_would_not_be_verified_is_refused(tmp_path: Path, settings: dict[str, object]) -> None:
    error = refusal(tmp_path, "rabbit://a:b@127.0.0.1:1/", **settings)
    assert (type(error), error.code) == (Refused, "bus_settings")
    assert "ssl_ca_file" in error.message and "[bus] allow_unverified_tls" in error.message


def test_tls_in_the_url_is_no_way_around(tmp_path: Path) -> None:
    error = refusal(tmp_path, "rabbit://a:b@127.0.0.1:1/?ssl=true")
    assert (type(error), error.code) == (Refused, "bus_settings")


def test_unverified_tls_can_be_asked_for(tmp_path: Path) -> None:
    error = refusal(tmp_path, "rabbit://a:b@127.0.0.1:1/", ssl="true", allow_unverified_tls="true")
    assert (type(error), error.code) == (Unreachable, "bus_unreachable")


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.client(), authority.server("127.0.0.1")
    (tmp_path / "nonsense").write_text("nonsense")
    for file in ("missing", "nonsense"):
        error = refusal(tmp_path, "rabbit://a:b@127.0.0.1:1/", ssl="true", ssl_ca_file=tmp_path / file)
        assert (error.code, "ssl_ca_file" in error.message) == ("bus_settings", True)
    pair = {"ssl_cert_file": one.certificate, "ssl_key_file": other.key}
    error = refusal(tmp_path, "rabbit://a:b@127.0.0.1:1/", ssl="true", ssl_ca_file=authority.file, **pair)
    assert (error.code, "ssl_key_file" in error.message) == ("bus_settings", True)


def test_who_takes_no_connection_or_does_not_answer_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refusal(tmp_path, "rabbit://a:b@127.0.0.1:1/")
    assert (type(error), error.code) == (Unreachable, "bus_unreachable")
    monkeypatch.setattr(bus, "_BROKER_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = refusal(tmp_path, f"rabbit://a:b@127.0.0.1:{silent.getsockname()[1]}/")
    assert (type(error), error.code) == (Unreachable, "bus_unreachable")


def test_the_embedded_bus_needs_no_broker(tmp_path: Path) -> None:
    with configured(tmp_path, bus.EMBEDDED) as conf:
        transport = bus.transport(conf)
        assert bus.is_embedded(conf)
        bus.require_broker(transport)


@pytest.mark.parametrize(
    ("settings", "quorum"),
    [({}, True), ({"amqp_auto_delete": "true"}, False), ({"rabbit_ha_queues": "true"}, False),
     ({"rabbit_quorum_queue": "false"}, False)],
)  # fmt: skip
def test_defaults_give_way_to_the_operator(tmp_path: Path, settings: dict[str, object], quorum: bool) -> None:
    own = {"rabbit_interval_max": 17, **settings}
    with configured(tmp_path, "rabbit://a:b@127.0.0.1:1/", **own) as conf:
        bus.transport(conf)
        group = conf[bus.GROUP]
        assert (group.rabbit_quorum_queue, group.rabbit_transient_quorum_queue) == (quorum, False)
        assert (group.rabbit_interval_max, group.heartbeat_timeout_threshold) == (17, 30)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    with private_rabbitmq(tmp_path_factory.mktemp("broker")) as it:
        yield it


@pytest.fixture(scope="module")
def secure_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    with private_rabbitmq(tmp_path_factory.mktemp("secure"), tls=True, client_certificates=True) as it:
        yield it


def queue_is(broker: RabbitMQ, queue: str, kind: str) -> bool:
    """Whether the queue is one of that kind: the broker refuses to declare it again as another."""
    with broker.connect() as connection:
        channel = amqp.Channel(connection)
        channel.open()
        try:
            channel.queue_declare(queue, durable=kind == "quorum", auto_delete=False, arguments={"x-queue-type": kind})
        except amqp.exceptions.PreconditionFailed:
            return False
        return True


@pytest.mark.services
def test_refused_logins_are_told(broker: RabbitMQ, tmp_path: Path) -> None:
    port = broker.port
    for login in ("xenward:Zw5-wrong.Secret", f"nobody:{broker.password}"):
        error = refusal(tmp_path, f"rabbit://{login}@127.0.0.1:{port}/{broker.virtual_host}")
        assert (type(error), error.code) == (Refused, "bus_authentication_failed")
        assert login.split(":")[1] not in str(error)
    error = refusal(tmp_path, f"rabbit://xenward:{broker.password}@127.0.0.1:{port}/elsewhere")
    assert (type(error), error.code) == (Refused, "bus_authentication_failed")
    # Of several brokers one is enough.
    hosts = f"xenward:{broker.password}@127.0.0.1:1,xenward:{broker.password}@127.0.0.1:{port}"
    with configured(tmp_path, f"rabbit://{hosts}/{broker.virtual_host}") as conf:
        bus.require_broker(bus.transport(conf))


@pytest.mark.services
def test_tls_where_the_broker_has_none(broker: RabbitMQ, tmp_path: Path) -> None:
    error = refusal(tmp_path, broker.url, ssl="true", ssl_ca_file=Authority(tmp_path).file)
    assert (type(error), error.code) == (Refused, "bus_tls_mismatch")


@pytest.mark.services
def test_the_services_queues_are_quorum_queues_and_survive_a_restart(broker: RabbitMQ, tmp_path: Path) -> None:
    """Calls that the restart meets end honestly and in time, those after it work, and none is carried out twice."""
    import oslo_messaging

    honest = (oslo_messaging.MessagingTimeout, oslo_messaging.MessageDeliveryFailure)
    endpoint = Endpoint()
    ended: dict[str, tuple[str, float]] = {}
    stop = threading.Event()

    def keep_calling(who: int) -> None:
        number = 0
        while not stop.is_set():
            name, began = f"{who}-{number}", time.monotonic()
            number += 1
            try:
                assert call(client, name) == name
                outcome = "answered"
            except honest as error:
                outcome = type(error).__name__
                # A call that fails at once would be made a thousand times.
                stop.wait(0.1)
            ended[name] = (outcome, time.monotonic() - began)

    with configured(tmp_path, broker.url) as conf:
        transport = bus.transport(conf)
        bus.require_broker(transport)
        with served(transport, endpoint) as client, ThreadPoolExecutor(2) as callers:
            assert call(client, "before") == "before"
            for queue in ("compute", "compute.here"):
                assert queue_is(broker, queue, "quorum") and not queue_is(broker, queue, "classic")
            running = [callers.submit(keep_calling, who) for who in range(2)]
            try:
                await_calls(ended, 20)
                broker.restart()
                with_restart = len(ended)
                await_calls(ended, with_restart + 20, only="answered")
            finally:
                stop.set()
            for each in running:
                each.result(SECONDS)
            assert call(client, "after") == "after"
    assert set(endpoint.done.values()) == {1}
    assert {name for name, (outcome, _) in ended.items() if outcome == "answered"} <= set(endpoint.done)
    # The call's own timeout, and what the machine needs to notice it.
    assert max(seconds for _, seconds in ended.values()) < 20 + 10


def await_calls(ended: dict[str, tuple[str, float]], count: int, only: str = "") -> None:
    """Wait until that many calls have ended, and with `only` until the last one has ended so."""
    deadline = time.monotonic() + SECONDS
    while len(ended) < count or (only and list(ended.values())[-1][0] != only):
        assert time.monotonic() < deadline, Counter(outcome for outcome, _ in ended.values())
        time.sleep(0.02)


@pytest.mark.services
def test_tls_is_verified(secure_broker: RabbitMQ, tmp_path: Path) -> None:
    it = secure_broker
    client = {"ssl_cert_file": it.client_certificate, "ssl_key_file": it.client_key}
    endpoint = Endpoint()
    with configured(tmp_path, it.url, ssl="true", ssl_ca_file=it.ca_file, **client) as conf:
        transport = bus.transport(conf)
        bus.require_broker(transport)
        with served(transport, endpoint) as caller:
            assert call(caller, "sealed") == "sealed"

    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").file
    error = refusal(tmp_path, it.url, ssl="true", ssl_ca_file=stranger, **client)
    assert (type(error), error.code) == (Refused, "bus_certificate_mismatch")
    # The certificate is for 127.0.0.1, and for no name.
    named = it.url.replace("127.0.0.1", "localhost")
    error = refusal(tmp_path, named, ssl="true", ssl_ca_file=it.ca_file, **client)
    assert (type(error), error.code) == (Refused, "bus_certificate_mismatch")
    error = refusal(tmp_path, it.url, ssl="true", ssl_ca_file=it.ca_file)
    assert (type(error), error.code) == (Refused, "bus_tls_mismatch")
    error = refusal(tmp_path, it.url)
    assert (type(error), error.code) == (Refused, "bus_tls_mismatch")


@pytest.mark.services
def test_oslo_itself_does_not_connect_to_a_stranger(secure_broker: RabbitMQ, tmp_path: Path) -> None:
    """The check at the start is not all: the connection that carries the orders verifies as well."""
    import oslo_messaging

    it = secure_broker
    (tmp_path / "other").mkdir()
    settings = {
        "ssl": "true",
        "ssl_ca_file": Authority(tmp_path / "other").file,
        "ssl_cert_file": it.client_certificate,
        "ssl_key_file": it.client_key,
    }
    with configured(tmp_path, it.url, **settings) as conf:
        transport = bus.transport(conf)
        target = oslo_messaging.Target(exchange="xenward", topic="nobody", server="here")
        client = oslo_messaging.get_rpc_client(transport, target)
        with pytest.raises(Exception, match=r"(?i)certificate verify failed"):
            client.prepare(retry=0).cast({}, "order", name="x", seconds=0)
        transport.cleanup()
