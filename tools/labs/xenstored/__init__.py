"""Debian's real XenStore daemons, unmodified, without a hypervisor: with guest domains, permissions and quotas.

A preloaded library stands in for the hypervisor (standin.c), and one thread for the kernels of all guests (kernels.py).
server.py puts this behind the interface of the simulated daemon. Needs apt, dpkg-deb and a C compiler; not the
superuser.
"""
