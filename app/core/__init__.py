"""What workers, listener and appliance share: settings, logs, metrics, the registry, the incident log, the canary.

It may import `notifymux` and nothing else of this project. It is the only part of `app` that the listener may import,
so nothing in it may start a thread, a task or a connection by itself, or depend on an event loop.
"""
