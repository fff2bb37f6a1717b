"""`python -m listener verify`: checks both servers and SNAPSHOT_QUERY, and sends a canary to every worker.

A check takes a connection and returns a `result.Check`; `runner` runs them in order and `output` prints them. The
package imports `app.core`, and of the listener only what the checks share with it: the append script, the stream's
entries and the registry's constants. It must never change anything except by that canary, never notify on a team's own
channel unasked, never deliver a canary to a client, and never print a password.
"""
