"""RabbitMQ and Redis die, are started again and forget, beside four runs in flight on two ``jivs worker``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jivs.testing.servers import PASSWORD, RabbitServer, RedisServer, wait_for

from .scenes import Scene, scene


@contextmanager
def two_workers(tmp_path: Path, database: Path, pg: str, **settings: str) -> Iterator[Scene]:
    given = {"EXTRACTION_MAX_PARALLEL_JOBS": "2", **settings}
    with scene(tmp_path, database, catalog=pg, beside=[{}, {}], pace=100_000, **given) as at:
        yield at


def with_rabbit(server: RabbitServer) -> dict[str, str]:
    return {
        "RABBITMQ_HOST": "127.0.0.1",
        "RABBITMQ_PORT": str(server.port),
        "RABBITMQ_USERNAME": "jivs",
        "RABBITMQ_PASSWORD": PASSWORD,
    }


def with_redis(server: RedisServer) -> dict[str, str]:
    return {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(server.port), "REDIS_PASSWORD": PASSWORD}


def test_a_broker_that_is_killed_and_one_that_is_restarted(
    tmp_path: Path, database: Path, pg: str, rabbit: RabbitServer
) -> None:
    with two_workers(tmp_path, database, pg, **with_rabbit(rabbit)) as at:
        try:
            at.start_everywhere()
            rabbit.stop()
            at.all_end_well()
            rabbit.start()
            at.start()
            rabbit.crash()
            at.all_end_well()
            at.one_more()
        finally:
            if rabbit.process is None:
                rabbit.start()


def test_lists_stay_true_while_redis_dies_comes_back_and_forgets(tmp_path: Path, database: Path, pg: str) -> None:
    """A name that was changed is seen as changed by whoever reads after a moment, whatever became of Redis in between."""
    with RedisServer() as redis, two_workers(tmp_path, database, pg, **with_redis(redis)) as at:

        def rename(name: str) -> None:
            source = at.api.get(f"/api/v1/sources/{at.source}")
            body = {key: source.json()[key] for key in ("url", "maxConnections", "maxRowsPerSecond")} | {"name": name}
            done = at.api.put(f"/api/v1/sources/{at.source}", json=body, headers={"If-Match": source.headers["ETag"]})
            assert done.status_code == 200, done.text
            assert at.api.get(f"/api/v1/sources/{at.source}").json()["name"] == name
            assert [one["name"] for one in at.api.get("/api/v1/sources").json()["items"]] == [name]
            listed = at.api.get("/api/v1/extractions").json()["items"]
            assert sorted(one["name"] for one in listed) == ["x0", "x1", "x2", "x3"]

        def statistics() -> list[dict[str, Any]]:
            return [at.api.get(f"{path}/statistics").json() for path in at.paths]

        rename("before")
        assert [shown["runs"] for shown in statistics()] == [0, 0, 0, 0]
        at.start()
        rename("while it is there")
        redis.crash()
        rename("while it is gone")
        assert [shown["runs"] for shown in statistics()] == [1, 1, 1, 1]
        redis.start()
        rename("while it comes back")
        wait_for(lambda: bool(redis.client().client_list("pubsub")), 10)
        redis.client().flushall()
        rename("after it forgot")
        redis.stop()
        redis.start()
        rename("after a restart")
        at.all_end_well()
        wait_for(lambda: [shown["byState"]["COMPLETED"] for shown in statistics()] == [1, 1, 1, 1], 5)
