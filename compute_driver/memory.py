"""The driver's memory of agents, kept in the service's database, which may be away for a while."""

from __future__ import annotations

from .agents import AgentInfo
from .db.repository import Repository
from .recording import Recorder


class RepositoryMemory:
    """An AgentMemory (agents.py) over the table of agents."""

    def __init__(self, repository: Repository, recorder: Recorder | None = None) -> None:
        self._repository = repository
        self._insist = (recorder or Recorder()).insist

    def recall(self, instance_uuid: str) -> AgentInfo | None:
        """As in AgentMemory."""
        agent = self._insist(lambda: self._repository.get_agent(instance_uuid))
        return None if agent is None else AgentInfo.from_dict(agent.to_dict())

    def remember(self, instance_uuid: str, agent: AgentInfo) -> None:
        """As in AgentMemory. InstanceNotFound when the instance is gone."""
        columns = agent.to_dict()
        del columns["fingerprint"]
        self._insist(lambda: self._repository.save_agent(instance_uuid, **columns))

    def forget(self, instance_uuid: str) -> None:
        """As in AgentMemory. Nothing happens when the instance is gone, either."""
        self._insist(lambda: self._repository.delete_agent(instance_uuid))
