"""The plugin's function `adverts`: what the agents of many guests tell about themselves, once they do."""

import json
import time
from typing import Any, Dict, List, Mapping, Optional

from agent_protocol.xenstore import Client

from . import conversation
from .conversation import ADVERT, INTRODUCED, MAX_VMS, bad_request, find_domains, is_uuid, next_tokens


def adverts(arguments: Mapping[str, str], store: Client) -> str:
    """Arguments: `vms`, a JSON array of VM uuids, and `timeout` in seconds.

    Waits until the agent of each VM has written its advert, or the time is up. Returns a JSON object with a member
    for each VM: the advert as the guest wrote it, or null. Raises PluginFailure XENWARD_BAD_REQUEST when the
    arguments are not of that form.
    """
    vms = _parse_vms(arguments.get("vms", ""))
    deadline = time.monotonic() + conversation.parse_timeout(arguments.get("timeout", ""))
    return json.dumps(_Adverts(store, vms).wait(deadline))


def _parse_vms(text: str) -> List[str]:
    try:
        vms: Any = json.loads(text)
    except (ValueError, RecursionError):
        vms = None
    if not isinstance(vms, list) or len(vms) > MAX_VMS or not all(isinstance(vm, str) and is_uuid(vm) for vm in vms):
        raise bad_request("vms must be a JSON array of at most %d uuids" % MAX_VMS)
    return vms


class _Adverts:
    def __init__(self, store: Client, vms: List[str]) -> None:
        self._store = store
        self._found: Dict[str, Optional[str]] = dict.fromkeys(vms)
        self._missing = set(vms)
        self._domains: Dict[str, str] = {}

    def wait(self, deadline: float) -> Dict[str, Optional[str]]:
        if self._missing:
            self._store.watch(INTRODUCED, INTRODUCED)
            self._locate()
        # A guest can cause events faster than they are looked at: the clock ends this, not the lack of events.
        while self._missing and time.monotonic() < deadline:
            for token in next_tokens(self._store, deadline):
                if token == INTRODUCED:
                    self._locate()
                elif token in self._missing:
                    self._look(token)
        return self._found

    def _locate(self) -> None:
        """Look for the domains of the VMs whose adverts are missing. A guest that restarted has another one now."""
        for vm, domain in find_domains(self._store, self._missing).items():
            if self._domains.get(vm) == domain:
                continue
            self._domains[vm] = domain
            # A watch fires once when it is registered, so an advert that comes in between is not missed.
            if not self._look(vm):
                self._store.watch("%s/%s" % (domain, ADVERT), vm)

    def _look(self, vm: str) -> bool:
        untrusted_advert = conversation.read(self._store, "%s/%s" % (self._domains[vm], ADVERT))
        if untrusted_advert is None:
            return False
        self._found[vm] = untrusted_advert.decode("utf-8", "replace")
        self._missing.discard(vm)
        return True
