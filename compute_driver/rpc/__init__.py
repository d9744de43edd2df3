"""The bus: the manager as an RPC server, and the client that callers use. Topic `compute`, server = host."""

from .client import EXCHANGE, TOPIC, VERSION, ComputeClient
from .server import ComputeEndpoint, server

__all__ = ["EXCHANGE", "TOPIC", "VERSION", "ComputeClient", "ComputeEndpoint", "server"]
