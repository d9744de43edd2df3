"""Disks: where they are made, what they are made from, images on their way, and volumes."""
