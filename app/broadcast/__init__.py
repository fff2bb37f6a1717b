"""From a worker's events to its clients' connections.

The hub takes each event from the worker's source, and the router finds the match it belongs to. Each client of that
match writes it to its connection, or queues it. A client starts with the events that it missed, from the replay buffer
or from Redis, or else with a snapshot. This package may import `app.core` and `notifymux`.

What must never happen: anything here waits for a client; a client that does not read takes more memory than the limit
of its queue; a client gets an event twice or out of order, or misses one without a `resync`.
"""
