"""What reaches into the guest: passwords, files, keys, the network and metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from agent_protocol.messages import Password
from agent_protocol.outcomes import Outcome, Refused

from ..agents import AgentInfo
from ..context import RequestContext
from ..db.records import Instance, Lease
from ..files import InjectedFile
from ..memory import RepositoryMemory
from ..network import Interface
from ..sealing import SealedAnswer, SealedFailure, check_sealed
from . import operations
from .life import LifeOperations
from .operations import SEALED_ACTIONS


class GuestOperations(LifeOperations):
    """All of these need a running guest, and most of them its agent."""

    def set_admin_password(self, context: RequestContext, target: str, new_pass: Password) -> None:
        """Set the administrator's password (action `set_admin_password`)."""
        with self._turn(context, target, operations.SET_PASSWORD) as turn:
            self._driver.set_admin_password(turn.instance, new_pass)
            self._warn_of_legacy(turn)

    def inject_file(self, context: RequestContext, target: str, file: InjectedFile) -> None:
        """Put a file into the guest (action `inject_file`)."""
        with self._turn(context, target, operations.INJECT_FILE) as turn:
            self._driver.inject_file(turn.instance, file)
            self._warn_of_legacy(turn)

    def add_ssh_keys(self, context: RequestContext, target: str, keys: Sequence[str]) -> None:
        """Add SSH keys to the administrator's (action `add_ssh_keys`)."""
        with self._turn(context, target, operations.ADD_SSH_KEYS) as turn:
            self._driver.add_ssh_keys(turn.instance, keys)
            self._warn_of_legacy(turn)

    def send_sealed(
        self, context: RequestContext, target: str, action: str, *, request_id: str, value: str, box: str
    ) -> SealedAnswer:
        """Carry a request that its caller sealed to the guest's agent, so that nobody here can read it.

        action: what it is, as the caller says; one of SEALED_ACTIONS. Raises SealedFailure when the agent signed that
        it did not succeed.
        """
        if action not in SEALED_ACTIONS:
            raise Refused("bad_action", f"a sealed request is one of {', '.join(SEALED_ACTIONS)}")
        check_sealed(value)
        with self._turn(context, target, SEALED_ACTIONS[action]) as turn:
            answer = self._driver.send_sealed(turn.instance, request_id, value, box)
            if answer.outcome is not Outcome.SUCCEEDED:
                raise SealedFailure(answer)
        return answer

    def trust_agent(self, context: RequestContext, target: str) -> AgentInfo:
        """Pin the agent that is in the guest now (action `trust_agent`)."""
        with self._turn(context, target, operations.TRUST_AGENT) as turn:
            return self._driver.trust_agent(turn.instance)

    def get_agent(self, context: RequestContext, target: str, action: str | None) -> AgentInfo | None:
        """What is remembered of the instance's agent, None when it was never met.

        action: what its key is asked for; an instance that cannot be found is recorded as the end of that.
        """
        try:
            instance = self._repository.find_instance(target)
        except Refused as error:
            if action is None or action not in SEALED_ACTIONS:
                raise
            refused = error

            def take(row: int, lease: Lease | None) -> Instance:
                del row, lease
                raise refused

            with self._carried_out(self._audit(context, SEALED_ACTIONS[action], target), take):
                raise
        return RepositoryMemory(self._repository).recall(instance.uuid)

    def inject_network_info(
        self, context: RequestContext, target: str, interfaces: Sequence[Interface] | None = None
    ) -> None:
        """Have the guest configure its interfaces (action `inject_network_info`).

        interfaces: what they are to be from now on; None for what they should be already.
        """
        with self._turn(context, target, operations.INJECT_NETWORK) as turn:
            known = self._repository.list_interfaces(turn.instance.uuid)
            wanted = known if interfaces is None else list(interfaces)
            if {(it.id, it.mac) for it in wanted} != {(it.id, it.mac) for it in known}:
                raise Refused(
                    "interfaces_differ", "these are not the interfaces of the instance; attach or detach first"
                )
            self._driver.inject_network_info(turn.instance, wanted)
            self._keep(self._repository.save_interfaces, turn.instance.uuid, wanted)

    def reset_network(self, context: RequestContext, target: str) -> None:
        """Have the guest read its network data again (action `reset_network`)."""
        with self._turn(context, target, operations.RESET_NETWORK) as turn:
            self._driver.reset_network(turn.instance)

    def change_instance_metadata(
        self, context: RequestContext, target: str, diff: Mapping[str, Sequence[str]]
    ) -> dict[str, str]:
        """Change the metadata of the instance, and tell its guest (action `change_instance_metadata`); gives them all.

        diff: by key, `["+", value]` or `["-"]`.
        """
        for change in diff.values():
            if not (list(change) == ["-"] or (len(change) == 2 and change[0] == "+")):
                raise Refused("bad_metadata", 'a change of metadata is ["+", value] or ["-"]')
        with self._turn(context, target, operations.CHANGE_METADATA) as turn:
            self._note(turn, json.dumps(sorted(diff)))
            self._driver.change_instance_metadata(turn.instance, diff)
            changed = {key: value for key, value in turn.instance.instance_metadata.items() if key not in diff}
            changed.update({key: change[1] for key, change in diff.items() if change[0] == "+"})
            turn.values["instance_metadata"] = changed
        return changed
