from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent_protocol.outcomes import Refused
from compute_driver.observing import logs
from compute_driver.observing.logs import about

from .capture import logged

CHECKOUT = Path(__file__).resolve().parents[3]

OURS = logging.getLogger("compute_driver.test")
LIBRARIES = [
    logging.getLogger(name) for name in ("oslo.messaging", "oslo_messaging.rpc", "amqp", "sqlalchemy", "urllib3")
]

SECRETS = st.text(min_size=4, max_size=20)


class Awkward:
    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Awkward {self.text!r}>"


class Broken:
    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __str__(self) -> str:
        raise ValueError(self.secret)

    __repr__ = __str__


def chained(secret: str) -> None:
    try:
        raise KeyError(secret)
    except KeyError as error:
        raise RuntimeError(f"{secret} and more") from error


def raised(logger: logging.Logger, secret: str) -> None:
    password = secret
    try:
        chained(password)
    except RuntimeError:
        logger.exception("it went wrong")


def honest(logger: logging.Logger, secret: str) -> None:
    try:
        raise Refused("password_policy", f"the policy does not like {secret}")
    except Refused:
        logger.warning("no", exc_info=True)


PLANTED: dict[str, Callable[[logging.Logger, str], object]] = {
    "message": lambda logger, secret: logger.info("x " + secret + " y"),
    "template": lambda logger, secret: logger.info(f"{secret} %s", "x"),
    "too few arguments": lambda logger, secret: logger.info("%s %s %d", secret),
    "argument": lambda logger, secret: logger.info("x %s y", secret),
    "argument's repr": lambda logger, secret: logger.info("x %r y", secret),
    "argument in a list": lambda logger, secret: logger.info("x %s y", ["it's", {'"': secret}]),
    "argument by name": lambda logger, secret: logger.info("x %(one)s y", {"one": Awkward(secret)}),
    "bytes": lambda logger, secret: logger.info("x %s y", secret.encode("utf-8", "surrogatepass")),
    "an object": lambda logger, secret: logger.info("x %r y", Awkward(secret)),
    "an object without text": lambda logger, secret: logger.info("x %s y", Broken(secret)),
    "an error as argument": lambda logger, secret: logger.info("x %s y", ValueError(secret)),
    "the message is an error": lambda logger, secret: logger.error(ValueError(secret)),
    "JSON": lambda logger, secret: logger.info("x %s y", json.dumps({"x": secret})),
    "an error with its cause": raised,
    "an honest error": honest,
}


@pytest.mark.parametrize("format", logs.FORMATS)
@settings(deadline=None)
@given(data=st.data(), secret=SECRETS, logger=st.sampled_from([OURS, *LIBRARIES]))
def test_no_secret_comes_out_wherever_it_is_planted(
    format: str, data: st.DataObject, secret: str, logger: logging.Logger
) -> None:
    how = data.draw(st.sampled_from(sorted(PLANTED)))
    logger.disabled = False
    with logged(format, secrets=[]) as before:
        logger.setLevel(logging.NOTSET)
        with about(request_id="req-1", action="stop", instance="one"):
            PLANTED[how](logger, "")
    # What stands in the line anyway is no secret that came out.
    baseline = before.getvalue() + "0123456789-:.TZ*"
    assume(secret not in baseline and len(set(secret) - set("0123456789:.-TZ* ")) > 1)
    with logged(format, secrets=[secret]) as out, about(request_id="req-1", action="stop", instance="one"):
        PLANTED[how](logger, secret)
    assert secret not in out.line
    assert json.dumps(secret)[1:-1] not in out.line
    if format == "json":
        assert secret not in out.object["message"]
        assert all(secret not in error["message"] for error in out.object.get("errors", []))


@settings(deadline=None)
@given(secret=SECRETS)
def test_what_a_line_is_about_holds_no_secret_either(secret: str) -> None:
    assume(len(set(secret)) > 2)
    with logged(secrets=[secret]) as out, about(request_id=f"x{secret}y", instance=secret):
        OURS.info("z")
    assert secret not in out.object["request_id"] + out.object["instance"]


def test_a_secret_that_is_told_later_is_kept_too() -> None:
    with logged() as out:
        logs.hide(["hunter22"])
        OURS.info("it is hunter22")
        assert logs.redacted("of hunter22\n") == "of ***\\n"
    assert out.object["message"] == "it is ***"


def test_a_secret_that_is_too_short_is_warned_of() -> None:
    with logged(secrets=["abc"]) as out:
        pass
    assert out.object["level"] == "WARNING"
    assert "abc" not in out.line


@pytest.mark.parametrize("format", logs.FORMATS)
@settings(deadline=None)
@given(text=st.text(), name=st.text(min_size=1))
def test_no_text_makes_a_second_line(format: str, text: str, name: str) -> None:
    with logged(format) as out, about(request_id=name, action=text, instance=f"{name}\n{text}"):
        logging.getLogger("compute_driver.test").warning("%s", text)
    assert out.line.isprintable()


def test_a_line_of_json_tells_all() -> None:
    with logged(host="compute-1") as out, about(request_id="req-1", action="stop", instance="3f0c"):
        OURS.warning("it takes %d s", 7)
    found = out.object
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "level": "WARNING",
        "logger": "compute_driver.test",
        "message": "it takes 7 s",
        "service": "xenward-compute",
        "host": "compute-1",
        "request_id": "req-1",
        "action": "stop",
        "instance": "3f0c",
    }


def test_a_line_of_text_tells_all() -> None:
    with logged("text") as out, about(request_id="req-1", instance="a name] x"):
        OURS.info("done: %s", "so")
    when, rest = out.line.split(" ", 1)
    assert when.endswith("Z")
    assert rest == 'INFO compute_driver.test [request_id=req-1 instance="a name] x"] done: so'


def test_the_time_is_in_utc() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "x", (), None)
    record.created = 1234567890.0625
    assert json.loads(logs.JsonLines("h").format(record))["time"] == "2009-02-13T23:31:30.062Z"


def test_a_traceback_has_frames_and_kinds_only() -> None:
    with logged() as out:
        raised(OURS, "anything at all")
    first, second = out.object["errors"]
    assert (first["type"], first["message"], second["type"], second["message"]) == ("RuntimeError", "", "KeyError", "")
    assert re.search(r"test_logs\.py:\d+ raised$", first["frames"][0])
    assert re.search(r"test_logs\.py:\d+ chained$", first["frames"][1])
    assert "anything" not in out.line
    assert "raise RuntimeError" not in out.line


def test_a_traceback_in_text_is_in_the_same_line() -> None:
    with logged("text") as out:
        raised(OURS, "anything at all")
        honest(OURS, "hunter2")
    first, second = out.lines
    assert re.search(r"it went wrong \| RuntimeError \(\S+:\d+ raised > \S+:\d+ chained\) \| KeyError \(", first)
    assert "Refused: the policy does not like hunter2 (password_policy) (" in second


def test_of_a_long_message_the_beginning_is_kept() -> None:
    with logged(secrets=["hunter22"]) as out:
        OURS.info("%s%s%s", "x" * (logs.MAX_MESSAGE - 4), "hunter22", "y" * 1000)
    message = out.object["message"]
    assert len(message) < logs.MAX_MESSAGE + 50
    assert message.endswith("x***y… (999 more characters)")


def test_what_it_is_about_ends_with_its_block() -> None:
    with logged() as out:
        with about(request_id="req-1", action="create"):
            with about(instance="3f0c", action="stop"):
                OURS.info("both")
                assert logs.current() == {"request_id": "req-1", "action": "stop", "instance": "3f0c"}
            with pytest.raises(KeyError), about(request_id="req-2"):
                raise KeyError
            OURS.info("outer")
        OURS.info("none")
    assert [(it.get("request_id"), it.get("action"), it.get("instance")) for it in out.objects] == [
        ("req-1", "stop", "3f0c"),
        ("req-1", "create", None),
        (None, None, None),
    ]


def test_a_thread_is_about_its_own() -> None:
    met = threading.Barrier(2, timeout=10)

    def work(name: str) -> None:
        with about(request_id=name):
            met.wait()
            OURS.info("%s", name)
            met.wait()

    with logged() as out, about(request_id="outer"):
        threads = [threading.Thread(target=work, args=[name]) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert sorted((it["message"], it["request_id"]) for it in out.objects) == [("one", "one"), ("two", "two")]


def test_green_threads_are_about_their_own() -> None:
    program = """
from compute_driver import concurrency
concurrency.set_up("eventlet")
import json, logging, sys, threading
import eventlet
from compute_driver.observing import logs
logs.set_up("json", "info", stream=sys.stdout)
log = logging.getLogger("compute_driver.test")
def work(name):
    with logs.about(request_id=name):
        for _ in range(3):
            eventlet.sleep(0)
            log.info("%s", name)
with logs.about(request_id="outer"):
    pool = eventlet.GreenPool(5)
    for number in range(5):
        pool.spawn_n(work, f"green {number}")
    thread = threading.Thread(target=work, args=["thread"])
    thread.start()
    pool.waitall()
    thread.join()
    log.info("outer")
eventlet.spawn(log.info, "nobody").wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 20
    assert all(it.get("request_id", "nobody") == it["message"] for it in found)
    assert "request_id" not in found[-1]


def test_debugging_is_for_our_own_words() -> None:
    with logged(level="debug") as out:
        OURS.debug("ours")
        for logger in LIBRARIES:
            logger.debug("what passes through")
        logging.getLogger("oslo.messaging").info("theirs")
    assert [it["message"] for it in out.objects] == ["ours", "theirs"]
    with logged(level="error") as out:
        OURS.warning("ours")
        logging.getLogger("oslo.messaging").warning("theirs")
        OURS.error("this")
    assert out.object["message"] == "this"


@pytest.mark.parametrize(("format", "level"), [("xml", "info"), ("json", "INFO"), ("json", "loud")])
def test_other_formats_and_levels_are_refused(format: str, level: str) -> None:
    with pytest.raises(ValueError, match="text or json"):
        logs.set_up(format, level)


def test_warnings_are_logged() -> None:
    with logged() as out, warnings.catch_warnings():
        # After catch_warnings, which puts back what shows them.
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.simplefilter("always")
        warnings.warn("password=hunter22 is old", stacklevel=1)
        logging.captureWarnings(False)
    assert out.object["logger"] == "py.warnings"
    assert "hunter22" not in out.line


def test_what_nobody_caught_is_logged_without_its_text() -> None:
    program = """
import sys, threading
from compute_driver.observing import logs
logs.set_up("json", "info")
def fail(): raise RuntimeError("hunter22")
thread = threading.Thread(target=fail); thread.start(); thread.join()
class Dying:
    def __del__(self): fail()
Dying()
def leave(): sys.exit(1)
thread = threading.Thread(target=leave); thread.start(); thread.join()
fail()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert [it["errors"][0]["type"] for it in found] == ["RuntimeError"] * 3
    assert [it["level"] for it in found] == ["CRITICAL"] * 3
    assert all(it["errors"][0]["frames"] for it in found)
    assert "hunter22" not in done.stderr + done.stdout
    assert done.returncode == 1


def test_a_stream_that_fails_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> Any:
            raise OSError(28, "No space left on device")

    with logged():
        logging.getLogger().handlers[0].stream = Full()  # type: ignore[attr-defined]
        OURS.info("hunter22")
    assert capfd.readouterr().err == "a log record of compute_driver.test could not be written\n"
