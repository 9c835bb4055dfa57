"""A cache in Redis 7, shared by processes."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.retry import Retry

from jivs.backends.cache.tally import Tally
from jivs.backends.trouble import Trouble
from jivs.domain.source import Secret
from jivs.ports.cache import CacheName, Counts, Miss

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
_SECONDS = 0.5
"""The longest that a call waits for Redis; a server that is silent for so long is left alone until it answers again."""
_IDLE_LINKS = 16
_LEASE_MS = 10_000
_LARGEST = 1 << 20
_MOST_OWED = 1000
_LEASE, _VALUE = b"L", b"V"
"""The first byte of what a key holds: a lease, or a value."""
_PUT = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end"
_DROP = "for i, key in ipairs(KEYS) do redis.call('UNLINK', key) redis.call('PUBLISH', ARGV[1], ARGV[2] .. ARGV[i + 2]) end"
_EVERYTHING = ""


class _Link:
    """One connection. Its keys have the id of the server process in their names: what a server brings back from its disk
    when it starts, or a replica has that takes over, may have been dropped since, and is never read.
    """

    def __init__(self, client: redis.Redis, space: str) -> None:
        self.client = client
        self.used = False
        self.prefix = f"{space}:{client.info('server')['run_id'][:16]}:"

    def get(self, place: str, lease: bytes) -> bytes:
        """What the key holds; it holds the lease from now on, if it held nothing."""
        found: Any = self.client.set(self.prefix + place, lease, nx=True, get=True, px=_LEASE_MS)
        return lease if found is None else bytes(found)

    def put(self, place: str, lease: bytes, value: bytes, milliseconds: int) -> bool:
        """Keep the value where the lease still stands."""
        self.client.eval(_PUT, 1, self.prefix + place, lease, value, milliseconds)
        return True

    def drop(self, channel: str, sender: str, places: Iterable[str]) -> bool:
        """Take values and leases away, and tell everybody who said so."""
        if _EVERYTHING in places:
            for key in self.client.scan_iter(match=f"{self.prefix}*", count=1000):
                self.client.unlink(key)
            self.client.publish(channel, sender + _EVERYTHING)
        else:
            keys = [self.prefix + place for place in places]
            self.client.eval(_DROP, len(keys), *keys, channel, sender, *places)
        return True


class RedisCache:
    """Whoever misses gets the lease that then stands at the key, and ``put`` replaces that lease only: a drop, an eviction,
    FLUSHALL and a restart take it away, so that a value loaded before is refused.

    A thread of its own hears what others drop, and notices within a second that Redis is gone, or back; in between, calls
    return at once. Drops that did not get through are owed, and made before anything else when Redis is back. ``space``
    keeps installations apart that share a server.
    """

    def __init__(self, host: str, port: int, password: Secret, space: str, seconds: Mapping[CacheName, float]) -> None:
        self._trouble = Trouble(_LOG, f"Redis at {host}:{port}", "everything is read from the catalog")
        self._options: dict[str, Any] = {
            "host": host,
            "port": port,
            "password": password.reveal() or None,
            "protocol": 2,
            "socket_timeout": _SECONDS,
            "socket_connect_timeout": _SECONDS,
            "retry": Retry(NoBackoff(), 0),
        }
        self._space = f"jivs:{space}"
        self._sender = f"{secrets.token_hex(8)} "
        self._seconds = seconds
        self._tally = Tally()
        self._links: deque[_Link] = deque()
        self._lock = threading.Lock()
        self._owed: dict[str, object] = {}
        self._settling = threading.Lock()
        self._up = False
        self._tried = threading.Event()
        self._closed = threading.Event()
        self._keeper: threading.Thread | None = None
        self._dropped: Callable[[CacheName, str], None] = lambda *_: None
        self._cleared: Callable[[], None] = lambda: None

    def listen(self, dropped: Callable[[CacheName, str], None], cleared: Callable[[], None]) -> None:
        """``dropped`` hears what any process drops; ``cleared``, that something may have been dropped unheard."""
        self._dropped, self._cleared = dropped, cleared

    def get(self, name: CacheName, key: str) -> bytes | Miss:
        return self._tally.count(name, self._find(name, key))

    def _find(self, name: CacheName, key: str) -> bytes | Miss:
        place = f"{name}:{key}"
        found = None
        if not self._owes(place):
            lease = _LEASE + secrets.token_bytes(16)
            found = self._try(lambda link: link.get(place, lease))
        if found is not None and found.startswith(_VALUE):
            return found[len(_VALUE) :]
        return Miss(name=name, key=key, token=found)

    def put(self, miss: Miss, value: bytes) -> None:
        place = f"{miss.name}:{miss.key}"
        lease, milliseconds = miss.token, int(self._seconds[miss.name] * 1000)
        if isinstance(lease, bytes) and len(value) <= _LARGEST and not self._owes(place):
            self._try(lambda link: link.put(place, lease, _VALUE + value, milliseconds))

    def drop(self, name: CacheName, key: str) -> None:
        with self._lock:
            if len(self._owed) >= _MOST_OWED:
                self._owed = {_EVERYTHING: object()}
            self._owed[f"{name}:{key}"] = object()
        self._pay()

    def clear(self) -> None:
        with self._lock:
            self._owed = {_EVERYTHING: object()}
        self._pay()

    def _pay(self) -> None:
        """Make the drops that are owed, if Redis is there."""
        if self._ready():
            with suppress(RedisError, OSError):
                self._settle(trying=False)

    def counts(self) -> Mapping[CacheName, Counts]:
        return self._tally.counts()

    def healthy(self) -> bool:
        return self._ready()

    def close(self) -> None:
        if self._owed:
            with suppress(RedisError, OSError):
                self._settle()
        self._closed.set()  # the thread ends at its next turn
        self._tried.set()
        self._hang_up()

    def _owes(self, place: str) -> bool:
        return bool(self._owed) and (place in self._owed or _EVERYTHING in self._owed)

    def _settle(self, *, trying: bool = True) -> None:
        """Make the drops that are owed, if Redis is up or ``trying``; one thread at a time. Raises RedisError, OSError."""
        with self._settling:
            with self._lock:
                owed = dict(self._owed)
            if not owed or not (self._up or trying):
                return
            try:
                self._ask(lambda link: link.drop(self._space, self._sender, owed))
            except (RedisError, OSError) as error:
                self._fail(error)
                raise
            with self._lock:
                for place, mark in owed.items():
                    if self._owed.get(place) is mark:  # or it was dropped once more meanwhile
                        del self._owed[place]

    def _ready(self) -> bool:
        """Whether Redis can be asked. The first call waits for the first connection."""
        if not self._tried.is_set():
            with self._lock:
                if self._keeper is None:
                    self._keeper = threading.Thread(target=self._keep, name="redis", daemon=True)
                    self._keeper.start()
            if not self._tried.wait(2 * _SECONDS):
                self._tried.set()
        return self._up and not self._closed.is_set()

    def _try(self, work: Callable[[_Link], _T]) -> _T | None:
        if not self._ready():
            return None
        try:
            return self._ask(work)
        except (RedisError, OSError) as error:
            self._fail(error)
            return None

    def _ask(self, work: Callable[[_Link], _T]) -> _T:
        """Do it over a connection that is free, or a new one. Raises RedisError, OSError."""
        link = self._take()
        try:
            return self._over(link, work)
        except redis.ConnectionError:
            if not link.used:
                raise
        self._hang_up()  # Redis was started again, or ends what is idle: the other connections are dead too
        return self._over(self._connect(), work)

    def _over(self, link: _Link, work: Callable[[_Link], _T]) -> _T:
        try:
            done = work(link)
        except BaseException:
            link.client.close()  # never used again: it would connect by itself, perhaps to another server process
            raise
        link.used = True
        if len(self._links) < _IDLE_LINKS and not self._closed.is_set():
            self._links.append(link)
        else:
            link.client.close()
        return done

    def _take(self) -> _Link:
        try:
            return self._links.pop()
        except IndexError:
            return self._connect()

    def _connect(self) -> _Link:
        client = redis.Redis(**self._options, single_connection_client=True)
        try:
            return _Link(client, self._space)
        except BaseException:
            client.close()
            raise

    def _hang_up(self) -> None:
        with suppress(IndexError):
            while True:
                self._links.pop().client.close()

    def _keep(self) -> None:
        while not self._closed.is_set():
            try:
                self._hear()
            except Exception as error:  # a thread that ended would be deaf for good
                self._fail(error)
            self._tried.set()
            self._closed.wait(_SECONDS)

    def _hear(self) -> None:
        """Hear what is dropped, until the connection breaks or Redis is silent. Raises RedisError, OSError."""
        client: Any = redis.Redis(**self._options)
        asked = False
        with client, client.pubsub() as line:
            line.subscribe(self._space)
            while not self._closed.is_set():
                message = line.get_message(timeout=_SECONDS)
                if message is not None:
                    asked = False
                    self._understand(message["type"], message["data"])
                elif asked:
                    raise redis.TimeoutError("no answer")
                else:
                    line.ping()
                    asked = True

    def _understand(self, kind: str, data: Any) -> None:
        if kind == "subscribe":
            self._cleared()  # whatever was dropped before went unheard
        elif kind == "message" and not data.startswith(self._sender.encode()):
            place = data.decode().partition(" ")[2]
            name, _, key = place.partition(":")
            if place == _EVERYTHING:
                self._cleared()
            elif name in set(CacheName):  # or a newer JiVS has it only
                self._dropped(CacheName(name), key)
        self._settle()
        if not self._up:
            self._up = True
            self._tried.set()
            self._trouble.over()

    def _fail(self, error: Exception) -> None:
        self._up = False
        if self._closed.is_set():
            return
        refused = isinstance(error, AuthenticationError)
        self._trouble.say("it refuses the password: see REDIS_PASSWORD" if refused else type(error).__name__)
