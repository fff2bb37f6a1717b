"""Usual implementations, with which notifymux is compared, and clients."""
