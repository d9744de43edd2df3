"""What the bus calls: checks the instance's state, takes its turn, records, calls the driver, records the outcome."""

from .following import Following
from .guests import GuestOperations
from .images import ImageOperations
from .nodes import NodeOperations
from .power import PowerOperations
from .questions import Questions
from .reconciliation import Reconciliation


class ComputeManager(
    GuestOperations, PowerOperations, ImageOperations, NodeOperations, Questions, Reconciliation, Following
):
    """The instances of one host, and all that can be done to them."""
