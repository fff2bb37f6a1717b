"""HTTP, WebSocket and server-sent events: routes, access control, client sessions, and uvicorn's protocols.

It may import `app.websocket_manager` and what that may import; only `app.composition` and gunicorn's configuration
import it.

What must never happen: a connection is accepted before access control; a token gets into the log; whatever a client
sends, however much and however slowly, ends the worker, delays other clients, or takes memory without a limit.
"""
