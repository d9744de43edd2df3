"""VMs: what they are made of, their life from spawn to removal, and what they show of themselves."""
