"""What runs in the hypervisor's dom0: one XAPI plugin named `xenward`. Standard library only, Python 3.6."""

__version__ = "0.1.0"
