"""The embedded PostgreSQL and Valkey, both from wheels, for the demo and the tests.

`servers` has their ports and their password; `postgres` and `valkey` become the servers. They listen on 127.0.0.1 only,
never run as root, and must never use a data folder that another server uses (`data_lock`).
"""
