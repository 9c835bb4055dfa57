"""``jivs.worker BELL``: the process of dispatcher and scheduler, a child of ``jivs serve`` or ``jivs worker``.

It ends when its standard input does. ``BELL``: the descriptor of a pipe that rings when there may be work. Workers begin as
forks of what this process is before it does anything.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from jivs import bootstrap, logs, settings
from jivs.errors import JivsError, SettingsError
from jivs.operations import shelf
from jivs.ports.service import Service
from jivs.worker import child, forks
from jivs.worker.dispatcher import Dispatcher
from jivs.worker.scheduler import Scheduler

_END_SECONDS = 5.0
_ASK_SECONDS = 1.0


def main() -> int:
    """Dispatch and schedule; 2 if the settings are wrong. In each fork: execute runs."""
    logs.setup("WARNING", "console")
    try:
        server = forks.start(bootstrap.preload)
    except OSError as error:  # there may be room for another process later
        logs.announce(f"Workers cannot be made: {error.strerror}.", logging.ERROR)
        return 1
    if server is None:
        return child.main()
    try:
        loaded = settings.load()
        logs.setup(loaded.log_level, loaded.log_format)
        bell = int(sys.argv[1]) if len(sys.argv) > 1 else -1
        service = bootstrap.build_service(loaded, process="dispatcher", hears=bell)
        dispatcher = Dispatcher(service, loaded.extraction.max_parallel_jobs, server)
        scheduler = Scheduler(service, keep_runs=loaded.history.runs, keep_days=loaded.history.days)
    except JivsError as error:
        logs.announce(f"Error: {error.message}", logging.ERROR)
        return 2

    begun = threading.Event()

    def end(*_: object) -> None:
        if not begun.is_set():
            os._exit(0)  # it waits for the catalog, or for others that bring its schema up, and has nothing to give back
        scheduler.end()
        dispatcher.end()

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    threading.Thread(target=_end_with_parent, args=(end,), name="parent", daemon=True).start()
    if not _has_the_shelf(service):
        return 2
    signal.signal(signal.SIGTERM, end)
    begun.set()
    scheduler.start()
    try:
        dispatcher.run()
    except forks.GoneError as error:  # whoever keeps this process starts it again
        logs.announce(f"No worker can be started any more: {error}.", logging.ERROR)
        return 1
    finally:
        scheduler.end()
        scheduler.join(_END_SECONDS)
        server.close()
    return 0


def _has_the_shelf(service: Service) -> bool:
    """Wait until it is known whether the archives of the catalog are here; False where they are not."""
    while True:
        try:
            shelf.require(service)
        except SettingsError as error:
            logs.announce(f"Error: {error.message}", logging.ERROR)
            return False
        except JivsError as error:
            logging.getLogger(__name__).warning("It is not known whether the archives are here: %s", error.message)
            time.sleep(_ASK_SECONDS)
        else:
            return True


def _end_with_parent(end: Callable[[], None]) -> None:
    while os.read(0, 1 << 12):
        pass
    end()


sys.exit(main())
