"""The gunicorn workers: they receive events from Redis or PostgreSQL and send them to WebSocket and SSE clients.

An event passes the packages in this order: `sources`, `monitoring` (which counts it), `broadcast`, `web`. The layers in
pyproject.toml say which package may import which. `appliance` prepares and supervises the processes of the container.
"""
