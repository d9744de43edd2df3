"""Faults on demand: what a test lets go wrong in a simulated XenServer, and what it can see of that.

rules.py says which calls are hit and how, visits.py and transfers.py do it, call_log.py writes down who called what,
conditions.py is what the rest of the simulator asks, and operations.py is what tests are given. The other modules are
one kind of fault each.
"""
