"""What an operator sees of the compute service's process: logs, metrics, health, and what systemd is told."""
