"""Caches: a small protocol, and a bounded one in memory."""
