"""Runs an ASGI application on the loopback interface, in a thread of its own."""

import asyncio
import os
import socket
import threading

import uvicorn
from starlette.types import ASGIApp, Scope

from llmcost_plugins.testing.errors import PortInUse

_HOST = "127.0.0.1"
_SHUTDOWN_SECONDS = 5.0


class _Server(uvicorn.Server):
    """A uvicorn server that says when it is ready and stops when told, without polling."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self.ready.set()

    async def main_loop(self) -> None:
        await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_SHUTDOWN_SECONDS)
        await asyncio.sleep(0)

    def serve_on(self, listener: socket.socket) -> None:
        """Serve until stopped."""
        try:
            self.run(sockets=[listener])
        finally:
            self.ready.set()

    def stop(self) -> None:
        """End the main loop; may be called from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)


class LoopbackServer:
    """A server that is up from `start` to `close`."""

    def __init__(self, port: int) -> None:
        self._socket = _bound_socket(port)
        self.port: int = self._socket.getsockname()[1]
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, app: ASGIApp) -> None:
        """Serve `app`; returns when connections are accepted."""
        config = uvicorn.Config(
            app,
            loop="asyncio",
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="critical",
            access_log=False,
            date_header=False,
            server_header=False,
            timeout_keep_alive=600,
        )
        server = self._server = _Server(config)
        name = f"fake-provider-{self.port}"
        self._thread = threading.Thread(target=server.serve_on, args=[self._socket], name=name, daemon=True)
        self._thread.start()
        server.ready.wait()
        if not server.started:
            self.close()
            raise RuntimeError("The fake provider's server did not start")

    def close(self) -> None:
        """Cut all connections and end the thread."""
        if self._server is not None and self._thread is not None:
            self._server.stop()
            self._thread.join()
        self._socket.close()

    def break_connection(self, scope: Scope) -> None:
        """Close the connection that a request came in on, after what was written to it."""
        if self._server is not None:
            for connection in self._server.server_state.connections:
                if getattr(connection, "client", None) == scope["client"]:
                    connection.transport.close()


def _bound_socket(port: int) -> socket.socket:
    # asyncio switches Nagle's algorithm off only for sockets that name the protocol; with it every stream event
    # could wait 40 ms for an acknowledgement.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((_HOST, port))
        bound.listen()
    except OSError as error:
        bound.close()
        raise PortInUse(_HOST, port) from error
    return bound
