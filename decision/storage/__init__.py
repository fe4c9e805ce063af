"""Durable storage: the `Store` port, and the backends that serve it."""
