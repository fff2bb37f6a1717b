"""The listener: the one process of a pod that LISTENs, `python -m listener`.

It receives every notification over one PostgreSQL session, gives it an id (`sequencer`), appends it to a stream in
Redis and publishes it to the workers (`forwarder`, `redis_stream`). `verify` checks this path from end to end. Of `app`
it may import `app.core` only, and `app` imports nothing of it. It must never stop reading from PostgreSQL while Redis
is away, never hold two sessions that LISTEN, and never drop an event without a new epoch that announces the gap.
"""
