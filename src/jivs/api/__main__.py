"""``jivs.api PUBLIC PRIVATE BELL``: the API's process, a child of ``jivs serve`` or ``jivs worker``.

Its parent gives it descriptors: of sockets that listen, the service's own and the management listener's, -1 for none, and of
the pipe that wakes workers. It ends when its standard input does.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading

from jivs import bootstrap, logs, settings
from jivs.api.rates import Rates
from jivs.api.server import Allowed, run
from jivs.errors import JivsError

_MOST_DESCRIPTORS = 1 << 16
_TURN_SECONDS = 0.0005
"""How long a thread that computes keeps the others waiting. The one that answers gives its turn away with each row that it
reads: at the 5 ms that are usual, a scrape of the metrics beside it made every request wait for tens of milliseconds.
"""


def main() -> int:
    """Serve; 2 if the settings are wrong."""
    sys.setswitchinterval(_TURN_SECONDS)
    _allow_descriptors()
    logs.setup("WARNING", "console")
    try:
        loaded = settings.load()
        logs.setup(loaded.log_level, loaded.log_format)
        logs.watch_collector(loaded.gc_pause / 1000)
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
        public, private = (socket.socket(fileno=int(given)) if given != "-1" else None for given in sys.argv[1:3])
        process = "api" if public is not None else "management"
        service = bootstrap.build_service(loaded, process=process, rings=int(sys.argv[3]))
        origins = [origin.strip().rstrip("/") for origin in loaded.cors_allowed_origins.split(",") if origin.strip()]
        rates = Rates(loaded.requests.per_second, loaded.requests.connecting)
        gc.freeze()  # what is loaded stays: a collector that looks at it again and again makes requests wait
        allowed = Allowed(origins=origins, proxies=bootstrap.trusted_proxies(loaded), rates=rates)
        run(service, public, private, logs.announce, allowed)
        service.app.tracing.close()
    except JivsError as error:
        logs.announce(f"Error: {error.message}", logging.ERROR)
        return 2
    return 0


def _allow_descriptors() -> None:
    """Clients, files of answers and connections take one each: as many as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _end_with_parent() -> None:
    while os.read(0, 1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


sys.exit(main())
