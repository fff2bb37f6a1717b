"""Where a worker's events come from: Redis, or PostgreSQL itself.

A source delivers events to an `EventSink`. It may import `app.core` and `notifymux`, and knows nothing of clients,
matches and pages. A source must never deliver an event twice or out of order, and must never skip one without calling
`EventSink.gap`. It waits for servers that are away; only a bug or a cancellation ends it.
"""
