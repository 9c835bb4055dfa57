"""``python -m jivs.worker [BELL]``: the dispatcher's process, a child of ``jivs serve`` or ``jivs worker``. It ends when its
standard input does. ``BELL``: the descriptor of a pipe that rings when there may be work.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

from jivs import bootstrap, logs, settings
from jivs.errors import JivsError
from jivs.worker.dispatcher import Dispatcher


def main() -> int:
    """Dispatch; 2 if the settings are wrong."""
    logs.setup("WARNING", "console")
    try:
        loaded = settings.load()
        logs.setup(loaded.log_level, loaded.log_format)
        dispatcher = Dispatcher(
            bootstrap.build_service(loaded, process="dispatcher", hears=int(sys.argv[1]) if len(sys.argv) > 1 else -1),
            loaded.extraction.max_parallel_jobs,
            keep_runs=loaded.history.runs,
            keep_days=loaded.history.days,
        )
    except JivsError as error:
        logs.announce(f"Error: {error.message}", logging.ERROR)
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
