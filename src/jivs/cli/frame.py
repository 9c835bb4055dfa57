"""What all verbs share: output as text or JSON, errors as sentences, exit codes, an interrupt that stops cleanly."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

from jivs.cli import exits
from jivs.errors import JivsError

if TYPE_CHECKING:
    from rich.console import Console

    from jivs.operations.job import Gate
    from jivs.ports.app import App
    from jivs.ports.clock import Clock
    from jivs.ports.service import Service
    from jivs.ports.upkeep import Upkeep
    from jivs.settings import Settings


class Output(StrEnum):
    """How results are printed."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", help="Print results as text, or as one JSON document.")]


def console() -> Console:
    """Where people read results; honours NO_COLOR and plain pipes. Names from sources are no markup."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, markup=False)


def build_app() -> App:
    """The application, from the settings."""
    from jivs import bootstrap

    loaded = load_settings()
    _notice(loaded)
    return bootstrap.build(loaded)


def build_upkeep() -> tuple[Upkeep, Clock]:
    """The catalog's database as a whole, and the clock."""
    from jivs import bootstrap

    loaded = load_settings()
    return bootstrap.build_upkeep(loaded), bootstrap.build(loaded).clock


def build_service() -> tuple[Service, Settings]:
    """The application with users, and the settings."""
    from jivs import bootstrap

    loaded = load_settings()
    _notice(loaded)
    return bootstrap.build_service(loaded), loaded


def _notice(loaded: Settings) -> None:
    from jivs.settings import notices

    for sentence in notices(loaded):
        _warn_once(sentence)


@cache
def _warn_once(sentence: str) -> None:
    logging.getLogger("jivs").warning(sentence)


def load_settings() -> Settings:
    """The settings; log lines are written as they say."""
    from jivs import logs, settings

    loaded = settings.load()
    logs.setup(loaded.log_level, loaded.log_format)
    return loaded


def show_json(data: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(data, indent=2, ensure_ascii=False, default=str))


@contextmanager
def clear_errors(output: Output) -> Iterator[None]:
    """Turn errors into one sentence on standard error (or a JSON document) and the exit code of their branch."""
    try:
        yield
    except JivsError as error:
        if error.detail:
            logging.getLogger("jivs").debug("%s", error.detail)
        _fail(output, error.message, exits.exit_code(error), type(error).__name__)
    except KeyboardInterrupt:
        _fail(output, "Stopped.", exits.INTERRUPTED, "KeyboardInterrupt")
    except BrokenPipeError:
        forget(sys.stdout)
        raise typer.Exit(exits.DONE) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        logging.getLogger("jivs").debug("unexpected", exc_info=error)
        _fail(
            output,
            f"Unexpected error ({type(error).__name__}). Run it again with JIVS_LOG_LEVEL=DEBUG and report what it prints; "
            "jivs inspect tells what an archive holds.",
            exits.UNEXPECTED,
            type(error).__name__,
        )


@contextmanager
def printing() -> Iterator[None]:
    """Print results whose exit code is known already: it stands, whether anybody reads them or not."""
    try:
        yield
        sys.stdout.flush()
    except OSError:
        forget(sys.stdout)


def forget(stream: TextIO) -> None:
    """Nobody reads what is printed: let the interpreter's own flush at the end go nowhere, too."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fail(output: Output, message: str, code: int, kind: str) -> NoReturn:
    if output is Output.JSON:
        show_json({"error": {"kind": kind, "message": message, "exit_code": code}})
    else:
        print(f"Error: {message}", file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def stopping(gate: Gate, hint: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM stops the run; a second one ends the process at once."""

    def handle(_number: int, _frame: Any) -> None:
        if gate.stopped:
            raise KeyboardInterrupt
        gate.stop()
        hint()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
