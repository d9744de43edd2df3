"""Services, agents, plugins and hosts that are killed in the middle of orders: nothing is lost, nothing is claimed."""
