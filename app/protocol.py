"""uvicorn's sans-I/O WebSocket protocol, with what ASGI has no word for."""

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

ABORT = "notifymux.abort"


class Protocol(WebSocketsSansIOProtocol):
    """Offers `scope["extensions"]["notifymux.abort"]["abort"]()`.

    It drops the connection at once: a client that does not read would keep a polite close, and its memory, waiting.
    """

    async def run_asgi(self) -> None:
        """Runs the application, with the extension in its scope."""
        self.scope["extensions"][ABORT] = {"abort": self.transport.abort}
        await super().run_asgi()
