"""Who listens at the broker learns no secret: neither by a queue of his own, nor by the broker's own copies.

A queue that is bound to the service's exchange gets the requests. Answers go through AMQP's default exchange, to which
no client can bind a queue, so those are seen in the copies that RabbitMQ makes for its administrator.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import amqp
import pytest

from tools.commands import proof
from tools.labs.services import RabbitMQ, private_rabbitmq
from tools.labs.services.rabbitmq import TRACE

from .recorder import RecordedHouse, leaks, recorded_house
from .test_recording import FIRST, MARK, SECOND, SMALL, Secrets
from .test_services import service

pytestmark = pytest.mark.services

EXCHANGE = "xenward"
"""compute_driver.rpc.EXCHANGE, which is not imported here: it would decide on this process's concurrency."""


@pytest.fixture
def recorded(directory: Path) -> Iterator[RecordedHouse]:
    (directory / "house").mkdir()
    with recorded_house(directory / "house") as it:
        yield it


class Spy:
    """A queue that gets a copy of whatever is published to an exchange, with any routing key."""

    def __init__(self, channel: amqp.Channel, exchange: str) -> None:
        self._channel = channel
        self._queue = channel.queue_declare(exclusive=True, auto_delete=False).queue
        channel.queue_bind(self._queue, exchange, routing_key="#")

    def messages(self) -> list[amqp.Message]:
        """What it got since it was asked last."""
        return list(iter(lambda: self._channel.basic_get(self._queue, no_ack=True), None))


def bytes_of(message: amqp.Message) -> bytes:
    """All of a message: body, properties and headers, and where it went."""
    body = message.body if isinstance(message.body, bytes) else message.body.encode()
    return b"\n".join([body, repr(message.properties).encode(), repr(message.delivery_info).encode()])


def request(message: amqp.Message) -> dict[str, Any]:
    """oslo.messaging's message within its envelope."""
    inner: dict[str, Any] = json.loads(json.loads(message.body)["oslo.message"])
    return inner


def commands(home: RecordedHouse, secrets: Secrets) -> Counter[str]:
    """Have every kind of secret sent, each proven in the guest. Which messages that takes at least, by method."""
    created = home.verbose(
        "server", "create", "web", "--password-stdin", "--key-file", str(secrets.login_file),
        "--file", f"/etc/small={secrets.small}", stdin=FIRST + "\n",
    )  # fmt: skip
    assert created.status == 0, created
    instance = created.shown["uuid"]
    guest = home.guest(instance)
    assert home.opens(instance, FIRST)
    assert proof.key_is_authorized(guest, "root", secrets.login_line)
    assert (guest / "etc/small").read_bytes() == SMALL
    assert home.verbose("server", "password", "set", "web", "--password-stdin", stdin=SECOND + "\n").status == 0
    assert home.opens(instance, SECOND)
    generated = home.verbose("server", "password", "generate", "web").shown["admin_password"]
    assert home.opens(instance, generated)
    made = home.verbose("server", "password", "generate", "web", "--ssh-key", str(secrets.rsa_file))
    for_rsa = secrets.decrypt(made.shown["ciphertext"])
    assert home.opens(instance, for_rsa)
    secrets.values += [generated.encode(), for_rsa.encode()]
    secrets.small.write_bytes(MARK * 1000)
    assert home.verbose("server", "file", "put", "web", str(secrets.small), "/opt/framed").status == 0
    assert (guest / "opt/framed").read_bytes() == MARK * 1000
    return Counter(build_and_run_instance=1, send_sealed=7)


def found(messages: list[amqp.Message], secrets: Secrets) -> list[bytes]:
    """Every spelling of a secret in the messages: clear, hexadecimal, base64, and each of them backwards."""
    data = b"\n".join(map(bytes_of, messages))
    return leaks(data, secrets.values) + leaks(data[::-1], secrets.values)


def test_a_spy_at_the_broker_learns_no_secret(recorded: RecordedHouse, directory: Path, tmp_path: Path) -> None:
    home, secrets = recorded, Secrets(tmp_path)
    (directory / "broker").mkdir()
    with private_rabbitmq(directory / "broker", trace=True) as broker:
        home.configure(default={"host": "spied", "transport_url": broker.url}, endpoint={"port": "-1"})
        with service(home), broker.connect() as connection:
            channel = amqp.Channel(connection)
            channel.open()
            requests, everything = Spy(channel, EXCHANGE), Spy(channel, TRACE)
            expected = commands(home, secrets)
            seen, traced = requests.messages(), everything.messages()
            assert_a_spy_sees_what_is_there(broker, requests, everything)
    assert all(message.delivery_info["routing_key"] == "compute.spied" for message in seen)
    methods = Counter(request(message)["method"] for message in seen)
    assert expected <= methods, methods
    assert methods.keys().isdisjoint({"set_admin_password", "inject_file", "add_ssh_keys"})
    keys = [message.delivery_info["routing_key"] for message in traced]
    # Each request is published once, and answered at least once: a long one shows that it is alive, too.
    assert keys.count(f"publish.{EXCHANGE}") == len(seen)
    answers = [message for message in traced if message.delivery_info["routing_key"] == "publish."]
    assert len([message for message in answers if request(message)["ending"]]) == len(seen)
    assert sum(b"box" in bytes_of(message) for message in answers) >= 1
    assert found(seen, secrets) == []
    assert found(traced, secrets) == []


def assert_a_spy_sees_what_is_there(broker: RabbitMQ, requests: Spy, everything: Spy) -> None:
    """Both find a secret that is sent openly, in its body or in a header, forwards or backwards."""
    with broker.connect() as connection:
        channel = amqp.Channel(connection)
        channel.open()
        channel.confirm_select()
        for body, header in ((MARK, "x"), (MARK[::-1], "x"), (b"x", MARK.decode())):
            message = amqp.Message(body, application_headers={"note": header})
            channel.basic_publish_confirm(message, exchange=EXCHANGE, routing_key="nobody")
            for spy in (requests, everything):
                data = b"\n".join(map(bytes_of, spy.messages()))
                assert leaks(data, [MARK]) + leaks(data[::-1], [MARK])
