"""``/events``: what happens to runs, as server-sent events (WHATWG HTML, section 9.2).

One reader per process asks the catalog, as long as anybody listens, and hands events to a bounded queue per listener. A
listener that does not keep up is let go: it comes back with ``Last-Event-ID`` and misses nothing of the last hour.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from jivs.api.deps import LARGEST, Caller, ReaderDep, ServiceDep
from jivs.api.document import Schema, fails, tells
from jivs.domain.access import Right
from jivs.errors import JivsError, TooManyError, UnauthenticatedError
from jivs.operations import users
from jivs.ports.service import Service
from jivs.ports.work import Event

router = APIRouter(prefix="/events", tags=["events"])

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.25
_QUIET_SECONDS = 15.0
_CHECK_SECONDS = 1.0
"""So often at least it is asked whether the listener may still listen."""

_BACKLOG = 1000
_PAGE = 500
_LISTENERS = 200
_EVENTS: Schema = {
    "text/event-stream": {
        "schema": {"type": "string", "description": "id, event (state or progress) and data: a run as JSON, in one line."},
        "example": "retry: 2000\n\nid: 7\nevent: state\n"
        'data: {"runId": "20260302T023114-966a6033", "extractionId": 1, "state": "RUNNING", "phase": "reading", "message": '
        '"", "rows": 30000, "bytes": 480000, "partitions": 4, "partitionsDone": 1}\n\n',
    }
}
_OF_ONE = 20


class Hub:
    """The listeners of a process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._queues: dict[asyncio.Queue[Event | None], int] = {}
        self._reader: asyncio.Task[None] | None = None

    def require_room(self, user_id: int) -> None:
        """Raises TooManyError where a user, or all of them, listen in too many places."""
        if len(self._queues) >= _LISTENERS or list(self._queues.values()).count(user_id) >= _OF_ONE:
            raise TooManyError("Too many listen to events already: try again later.", seconds=30)

    def listen(self, after: int, user_id: int) -> asyncio.Queue[Event | None]:
        """A queue of the events from now on; None is its end. The first reader begins ``after`` that event."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(_BACKLOG)
        self._queues[queue] = user_id
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read(after))
        return queue

    def leave(self, queue: asyncio.Queue[Event | None]) -> None:
        """Nobody reads this queue any more."""
        self._queues.pop(queue, None)

    async def _read(self, last: int) -> None:
        while self._queues:
            try:
                found = await run_in_threadpool(self._service.work().events, last, _PAGE)
            except JivsError as error:
                _LOG.warning("Events cannot be read: %s", error.message)
                found = []
            for event in found:
                last = event.id
                for queue in list(self._queues):
                    self._hand(queue, event)
            if len(found) < _PAGE:
                await asyncio.sleep(_POLL_SECONDS)

    def _hand(self, queue: asyncio.Queue[Event | None], event: Event) -> None:
        try:
            queue.put_nowait(event)
        except asyncio.QueueFull:
            self.leave(queue)
            queue.get_nowait()
            queue.put_nowait(None)


_NOTHING = Event(id=0, kind="", run_id="", extraction_id=0, data="")


def _text(event: Event) -> str:
    return f"id: {event.id}\nevent: {event.kind}\ndata: {event.data}\n\n"


async def _stream(
    service: Service, hub: Hub, caller: Caller, token: str, last: int, newest: int, extraction_id: int
) -> AsyncIterator[str]:
    """What was missed, then what comes, until the access token expires or is void."""
    seconds = caller.claims.expires_at - service.clock.now().timestamp()
    end = asyncio.get_running_loop().time() + seconds
    last = newest if last < 0 or last > newest else last
    try:
        hub.require_room(caller.user.id)  # others came while this answer began
    except TooManyError as error:
        yield f": {error.message}\n\n"
        return
    queue = hub.listen(newest, caller.user.id)
    try:
        yield "retry: 2000\n\n"
        while page := await run_in_threadpool(service.work().events, last, _PAGE):
            for event in page:
                last = event.id
                if extraction_id in {0, event.extraction_id}:
                    yield _text(event)
        said = now = asyncio.get_running_loop().time()
        while now < end:
            try:
                event_ = await asyncio.wait_for(queue.get(), min(_CHECK_SECONDS, end - now))
            except TimeoutError:
                event_ = _NOTHING
            if event_ is None or not await _may_listen(service, token):
                return
            now = asyncio.get_running_loop().time()
            if event_ is not _NOTHING and event_.id > last and extraction_id in {0, event_.extraction_id}:
                said = now
                yield _text(event_)
            elif now - said > _QUIET_SECONDS:
                said = now
                yield ": still there\n\n"
    finally:
        hub.leave(queue)


async def _may_listen(service: Service, token: str) -> bool:
    """Whether the token is still good: its user may have left meanwhile, or have been sent away."""
    try:
        found = users.at_hand(service, token)
        user, _ = found if found is not None else await run_in_threadpool(users.authenticate, service, token)
    except UnauthenticatedError:
        return False
    except JivsError:  # the catalog does not answer, and so has no events either
        return True
    return user.may(Right.READ)


@router.get(
    "",
    response_class=StreamingResponse,
    responses=tells(content=_EVENTS, description="Events until the access token expires.") | fails(429),
)
async def stream_events(
    request: Request,
    service: ServiceDep,
    caller: ReaderDep,
    last_event_id: Annotated[str, Header(alias="Last-Event-ID", max_length=20, pattern="^[0-9]*$")] = "",
    extraction_id: Annotated[int, Query(alias="extractionId", ge=0, le=LARGEST, description="Only of this one.")] = 0,
) -> StreamingResponse:
    """State and progress of runs as they happen: events ``state`` and ``progress``, each with the run as JSON.

    ``Last-Event-ID`` goes on behind that event. The stream ends when the access token expires or is void.
    """
    hub: Hub = request.app.state.hub
    hub.require_room(caller.user.id)  # what can be refused is refused before the answer has begun
    newest = await run_in_threadpool(service.work().last_event)
    last = int(last_event_id) if last_event_id else -1
    token = request.headers["authorization"].partition(" ")[2]
    return StreamingResponse(
        _stream(service, hub, caller, token, last, newest, extraction_id),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )
