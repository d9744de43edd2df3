"""The plugin's function `console_log`: the end of what a guest wrote to its serial console, if dom0 keeps that.

XenAPI has no call for it. What keeps it in XenServer and XCP-ng, xenconsoled and (for the device model's serial port)
xenopsd, writes to the file that the XenStore node `/local/logconsole/<domid>` names, or else `/local/logconsole/@`, in
which `%d` stands for the domid. Elsewhere xenconsoled writes where its options `--log=guest` and `--log-dir` say.
"""

import binascii
import errno
import json
import os
import stat
from typing import Dict, List, Mapping, Optional

from agent_protocol.xenstore import Client

from .conversation import bad_request, find_domains, is_uuid, read

MAX_BYTES = 100 * 1024
"""Bytes from the end of the log that are read: as much as Nova shows of a console."""

NODE = "/local/logconsole"
"""Only dom0 can write there."""

DIRECTORY = "/var/log/xen/console"
"""Where xenconsoled's own log of a guest is: `guest-<name of the domain>.log`."""

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)


def console_log(arguments: Mapping[str, str], store: Client) -> str:
    """Argument: `vm`, the uuid of a VM. PluginFailure XENWARD_BAD_REQUEST when it is none.

    Returns a JSON object whose `log` is one of

    `read`: with `data`, its last MAX_BYTES bytes in base64, and `size` in bytes;
    `absent`: no domain of this VM runs here;
    `none`: nothing is kept of this domain;
    `refused`: where it should be is no regular file, or none that can be read; `errno` tells more.
    """
    vm = arguments.get("vm", "")
    if not is_uuid(vm):
        raise bad_request("vm must be a uuid")
    domain = find_domains(store, [vm]).get(vm)
    if domain is None:
        return json.dumps({"log": "absent"})
    for path in _places(store, domain):
        answer = _tail(path)
        if answer is not None:
            return json.dumps(answer)
    return json.dumps({"log": "none"})


def _places(store: Client, domain: str) -> List[bytes]:
    """Where the log may be, the likeliest first."""
    domid = domain.rpartition("/")[2]
    own, every = read(store, NODE + "/" + domid), read(store, NODE + "/@")
    name = read(store, domain + "/name")
    places = [own, every.replace(b"%d", domid.encode("ascii")) if every is not None else None]
    if name and b"/" not in name:
        places.append(DIRECTORY.encode("ascii") + b"/guest-" + name + b".log")
    return [place for place in places if place and place.startswith(b"/") and b"\0" not in place]


def _tail(path: bytes) -> Optional[Dict[str, object]]:
    """The answer for a file; None when there is none."""
    try:
        # Neither a link that leads elsewhere nor a pipe that would keep us waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        return {"log": "refused", "errno": errno.errorcode.get(error.errno or errno.EIO, "EIO")}
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return {"log": "refused", "errno": "EINVAL"}
        os.lseek(descriptor, max(0, status.st_size - MAX_BYTES), os.SEEK_SET)
        data = b""
        while len(data) < MAX_BYTES:
            piece = os.read(descriptor, MAX_BYTES - len(data))
            if not piece:
                break
            data += piece
    finally:
        os.close(descriptor)
    encoded = binascii.b2a_base64(data, newline=False).decode("ascii")
    return {"log": "read", "size": status.st_size, "data": encoded}
