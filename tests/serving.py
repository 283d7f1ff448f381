"""A web application served on a free port of this machine, for the tests with a browser."""

import threading
import time
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette

from clearhead.studio.app.serving import take_port


def serve_app(app: Starlette) -> Iterator[str]:
    """Serve the application, and yield its address."""
    with take_port("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server ended before it served"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()
