"""``python -m jivs.api SOCKET BELL``: the API's process, a child of ``jivs serve``. It ends when its standard input does.

``SOCKET`` and ``BELL``: descriptors of a socket that listens and of the pipe that wakes workers.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading

from jivs import bootstrap, settings
from jivs.api.server import run
from jivs.errors import JivsError


def main() -> int:
    """Serve; 2 if the settings are wrong."""
    try:
        loaded = settings.load()
        logging.basicConfig(
            level=loaded.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
        )
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
        run(
            bootstrap.build_service(loaded, rings=int(sys.argv[2])),
            socket.socket(fileno=int(sys.argv[1])),
            [origin.strip().rstrip("/") for origin in loaded.cors_allowed_origins.split(",") if origin.strip()],
            lambda url: _say(f"JiVS is at {url}"),
        )
    except JivsError as error:
        _say(f"Error: {error.message}")
        return 2
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _end_with_parent() -> None:
    while os.read(0, 1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


sys.exit(main())
