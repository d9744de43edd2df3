"""What runs in the lab's dom0."""
