"""An agent in an interpreter without what Windows's Python lacks: it imports everything neutral, serves, and tells.

Run by test_neutral.py. One line of JSON: what a host was answered.
"""

from __future__ import annotations

# What the standard library needs of the real platform is loaded before that is taken away.
import ctypes.wintypes
import importlib
import importlib.metadata
import importlib.resources
import json
import logging
import multiprocessing
import os
import pkgutil
import platform
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

MISSING_MODULES = ("fcntl", "pwd", "grp", "termios", "resource", "spwd", "crypt", "syslog", "tty", "pty", "posix")
MISSING = {
    os: (
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_TMPFILE", "ST_RDONLY", "fchmod", "fchown", "fork"),
        *("getegid", "geteuid", "getuid", "getxattr", "memfd_create", "pread", "set_blocking", "setxattr", "statvfs"),
        *("uname", "mkfifo", "chown", "getloadavg", "setsid", "waitid"),
    ),
    signal: ("SIGALRM", "SIGHUP", "SIGQUIT", "SIGKILL", "ITIMER_REAL", "alarm", "setitimer", "pause"),
    select: ("poll", "epoll"),
    socket: ("AF_UNIX", "AF_NETLINK", "NETLINK_ROUTE", "sethostname"),
    time: ("CLOCK_BOOTTIME", "clock_gettime"),
}
LOADED_BEFORE = (ctypes.wintypes, shutil, tempfile, subprocess, multiprocessing, platform, urllib.request)

NEUTRAL = (
    *("__main__", "agent", "answers", "check", "configuration", "identity", "log", "memory", "nodes", "presence"),
    *(
        "sealed",
        "session",
        "start",
        "transfer",
        "unread",
        "store",
        "store.base",
        "store.windows",
        "system",
        "system.base",
    ),
    *("system.accounts", "system.authorized_keys", "system.cloud_init", "system.distributions", "system.hostname"),
    *("network.apply", "network.data", "network.facets", "network.legacy", "network.sealed", "network.undo"),
)
"""Modules of guest_agent, besides all commands, that an agent of any system loads, or whose names it uses."""


def cripple() -> None:
    sys.platform = "win32"
    platform.system = lambda: "Windows"
    for name in MISSING_MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in MISSING.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)


def import_all() -> None:
    for name in NEUTRAL:
        importlib.import_module(f"guest_agent.{name}")
    for package in ("agent_protocol", "guest_agent.commands"):
        for found in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
            importlib.import_module(found.name)


def serve() -> dict[str, object]:
    """Questions by name, and what they were answered with."""
    from agent_protocol.messages import ADVERT, parse_advert
    from guest_agent import log
    from guest_agent.__main__ import prepared
    from guest_agent.configuration import DEFAULT_STORE
    from guest_agent.store import windows

    from .memory_store import MemoryStore
    from .standin_system import StandinSystem

    vm = "6d2f9d0e-3a4b-4c5d-8e6f-708192a3b4c5"
    store, system = MemoryStore(), StandinSystem()
    store.write("vm", f"/vm/{vm}".encode())
    # In the place of the driver's.
    windows.OPENERS["xeniface"] = lambda: store
    log.set_up()
    agent = prepared(system)
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        told: dict[str, object] = {"store": DEFAULT_STORE}
        told["features"] = list(parse_advert(store.wait_for(ADVERT)).features)
        questions = {
            "version": "",
            "kmsactivate": "kms.example.com:1688",
            "file_put": json.dumps({"path": "C:\\x", "content": "eA=="}),
            "agentupdate": "http://example.com/x,0",
        }
        for name, value in questions.items():
            told[name] = ask(store, name, value)
        for name in ("ping", "info", "freeze", "kmsactivate"):
            told[f"sealed {name}"] = ask_sealed(store, vm, name)
        told["done"] = system.done
        told["state"] = sorted(system.state)
    finally:
        agent.stop()
        thread.join(20.0)
    told["ended"] = not thread.is_alive()
    return told


def ask(store: object, name: str, value: str, request_id: str = "") -> object:
    from agent_protocol.messages import REPLIES, REQUESTS, new_request_id

    from .memory_store import MemoryStore

    assert isinstance(store, MemoryStore)
    request_id = request_id or new_request_id()
    store.write(f"{REQUESTS}/{request_id}", json.dumps({"name": name, "value": value}).encode())
    return json.loads(store.wait_for(f"{REPLIES}/{request_id}"))


def ask_sealed(store: object, vm: str, name: str) -> object:
    from agent_protocol.adverts import verify_advert
    from agent_protocol.messages import ADVERT, new_request_id
    from agent_protocol.sealed import (
        encode_sealed_request,
        open_reply,
        parse_sealed_reply,
        seal_request,
        verify_receipt,
    )

    from .memory_store import MemoryStore

    assert isinstance(store, MemoryStore)
    advert = verify_advert(store.read(ADVERT), vm)
    request_id = new_request_id()
    box = seal_request(advert.key, vm, request_id, name, "", expires=int(time.time()) + 60)
    members = json.loads(encode_sealed_request(box).node)
    answer = ask(store, members["name"], members["value"], request_id)
    reply = parse_sealed_reply(json.dumps(answer).encode())
    receipt = verify_receipt(reply, advert.identity, vm, request_id)
    # The next question is sealed to the key that the advert has by then.
    while verify_advert(store.read(ADVERT), vm).key != receipt.next_key:
        time.sleep(0.005)
    result = open_reply(receipt, box.reply_key, vm, request_id, reply.box)
    return [str(result.outcome), result.code, dict(result.data)]


if __name__ == "__main__":
    logging.raiseExceptions = True
    cripple()
    import_all()
    print(json.dumps(serve()))
