"""Computers that run Windows programs, by Debian's Wine, without a display and without a network of this machine's.

A Machine (machine.py) boots a disk (disk.py) in namespaces of its own and is gone with its owner. What Wine lacks for a
Xen guest is compiled at first use (parts.py): the sources, and what each of them stands in for, are in sources/.
guest.py is one as a guest of the simulated XenServer. Needs the superuser, apt, dpkg-deb; installs nothing.
"""
