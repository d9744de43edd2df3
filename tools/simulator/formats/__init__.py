"""Disk image formats as streams: each is read front to back, and nothing larger than a block is ever in memory."""
