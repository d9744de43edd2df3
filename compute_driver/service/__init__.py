"""The compute service: what it is put together from, how it gets its host, and the process."""
