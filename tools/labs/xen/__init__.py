"""Real Xen, with a real dom0 and real guests, under QEMU's emulation: without KVM, and without the superuser."""
