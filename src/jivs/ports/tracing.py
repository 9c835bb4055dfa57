"""Spans: what a request or a run did and how long it took, for a collector of traces."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Span(Protocol):
    """A span in progress."""

    @property
    def trace_id(self) -> str:
        """32 hex digits; empty if nobody records."""

    @property
    def traceparent(self) -> str:
        """What another process needs to go on with this trace (W3C Trace Context); empty if nobody records."""

    def rename(self, name: str) -> None:
        """A better name is known now."""

    def note(self, **attributes: str | int | float) -> None:
        """Attributes, dots in their names written as ``__``: ``http__route``."""

    def fail(self, what: str) -> None:
        """It went wrong."""


class Tracing(Protocol):
    """Spans begin and end in the thread or task that opens them; those opened inside belong to them."""

    @property
    def active(self) -> bool:
        """Whether anybody records spans."""

    def span(
        self, name: str, *, traceparent: str = "", server: bool = False, **attributes: str | int | float
    ) -> AbstractContextManager[Span]:
        """A span for the duration of the block; an error that leaves it fails it. ``traceparent``: the trace to go on with,
        as it was received; what is not one is left alone. ``server``: it answers somebody outside.
        """

    def close(self) -> None:
        """Send what is still to be sent; a collector that does not answer is not waited for long."""


class _NoSpan:
    trace_id = ""
    traceparent = ""

    def rename(self, name: str) -> None:
        """Nothing."""

    def note(self, **attributes: str | int | float) -> None:
        """Nothing."""

    def fail(self, what: str) -> None:
        """Nothing."""


class NoTracing:
    """Nobody records."""

    active = False

    def span(
        self,
        name: str,  # noqa: ARG002
        *,
        traceparent: str = "",  # noqa: ARG002
        server: bool = False,  # noqa: ARG002
        **attributes: str | int | float,  # noqa: ARG002
    ) -> AbstractContextManager[Span]:
        """Nothing."""
        return nullcontext(_NoSpan())

    def close(self) -> None:
        """Nothing."""
