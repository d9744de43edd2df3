"""The simulated XenServer's XenStore: the wire, the permissions and the quotas of the real daemons, in one thread."""
