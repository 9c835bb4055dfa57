"""moto as an object store: ``python -m jivs.testing.objects PORT`` serves it on loopback."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from typing import Any


def main() -> None:
    """Serve until the process ends. Conditional writes come one at a time: moto looks first and writes then."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    moto = DomainDispatcherApplication(create_backend_app)
    writing = threading.Lock()

    def serve(environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        if "HTTP_IF_NONE_MATCH" not in environment:
            return moto(environment, start)  # type: ignore[no-any-return]
        with writing:
            return moto(environment, start)  # type: ignore[no-any-return]

    make_server("127.0.0.1", int(sys.argv[1]), serve, threaded=True, request_handler=MotoRequestHandler).serve_forever()


if __name__ == "__main__":
    main()
