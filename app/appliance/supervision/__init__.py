"""Restarts what dies or hangs."""
