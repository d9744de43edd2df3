"""Guests on their way from one simulated pool to another: what VM.migrate_send and the services behind it do.

The source's XenServer connects to the destination's and keeps that connection for the whole way (frames.py): it
describes the VM (description.py), sends its disks while it runs, then freezes its guest and sends that, too
(guest_files.py). The destination builds everything, and lets the guest go on only when it is told to. Until then the
source can take it all back, and a connection that breaks means just that at both ends.
"""
