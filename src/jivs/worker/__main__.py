"""``python -m jivs.worker [BELL]``: the dispatcher's process, a child of ``jivs serve`` or ``jivs worker``. It ends when its
standard input does. ``BELL``: the descriptor of a pipe that rings when there may be work.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

from jivs import bootstrap, settings
from jivs.errors import JivsError
from jivs.worker.dispatcher import Dispatcher


def main() -> int:
    """Dispatch; 2 if the settings are wrong."""
    try:
        loaded = settings.load()
        logging.basicConfig(
            level=loaded.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
        )
        dispatcher = Dispatcher(
            bootstrap.build_service(loaded, hears=int(sys.argv[1]) if len(sys.argv) > 1 else -1),
            loaded.extraction.max_parallel_jobs,
            keep_runs=loaded.history.runs,
            keep_days=loaded.history.days,
        )
    except JivsError as error:
        sys.stderr.write(f"Error: {error.message}\n")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: dispatcher.end())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    threading.Thread(target=_end_with_parent, args=(dispatcher,), name="parent", daemon=True).start()
    dispatcher.run()
    return 0


def _end_with_parent(dispatcher: Dispatcher) -> None:
    while os.read(0, 1 << 12):
        pass
    dispatcher.end()


sys.exit(main())
