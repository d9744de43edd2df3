"""How XenServer is reached: sessions, TLS, long calls as tasks, and the stream of its events."""
