"""The pool's hosts, which are the driver's nodes."""
