"""A real Prometheus, and the exporters of PostgreSQL and Redis, as the deployment has them."""

from __future__ import annotations

import json
import math
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

from jivs.testing.servers import PASSWORD, PostgresServer, RedisServer, Server


class _Answering(Server):
    """Ready when this path answers."""

    path = "/metrics"

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}{self.path}", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Prometheus(_Answering):
    """``past``: samples, as OpenMetrics, that it begins with; ``targets``: what it scrapes each second, by job, a URL each;
    ``rules``: groups of rules.
    """

    path = "/-/ready"

    def __init__(
        self, *, past: Sequence[str] = (), targets: dict[str, str] | None = None, rules: Sequence[dict[str, Any]] = ()
    ) -> None:
        super().__init__("prometheus")
        jobs = [
            {
                "job_name": job,
                "metrics_path": urllib.parse.urlsplit(url).path,
                "static_configs": [{"targets": [urllib.parse.urlsplit(url).netloc]}],
            }
            for job, url in (targets or {}).items()
        ]
        every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        self.write("rules.yml", json.dumps({"groups": list(rules)}))
        self.write("prometheus.yml", json.dumps({"global": every, "rule_files": ["rules.yml"], "scrape_configs": jobs}))
        if past:
            lines = self.write("past.txt", "\n".join([*past, "# EOF", ""]))
            self.run(["promtool", "tsdb", "create-blocks-from", "openmetrics", str(lines), str(self.folder / "data")])

    def command(self) -> list[str]:
        return [
            "prometheus", f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=error",
        ]  # fmt: skip

    def get(self, path: str, **given: str | float) -> Any:
        """The data of an answer."""
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(given)}", timeout=20) as answer:
            return json.load(answer)["data"]

    def values(self, query: str, since: float, until: float) -> list[float]:
        """All values of all series of a query in a span of time, second by second; NaN left out."""
        found = self.get("query_range", query=query, start=since, end=until, step=1)["result"]
        values = [float(value) for series in found for _, value in series["values"]]
        return [value for value in values if not math.isnan(value)]


class PostgresExporter(_Answering):
    """What PostgreSQL tells of itself."""

    def __init__(self, database: PostgresServer, name: str) -> None:
        super().__init__("postgres-exporter")
        url = f"{database.url(name)}?sslmode=disable"
        self._password = self.write("url", url)

    def command(self) -> list[str]:
        return [
            "env", f"DATA_SOURCE_NAME={self._password.read_text()}",
            "prometheus-postgres-exporter", f"--web.listen-address=127.0.0.1:{self.port}",
        ]  # fmt: skip


class RedisExporter(_Answering):
    """What Redis tells of itself."""

    def __init__(self, redis: RedisServer) -> None:
        super().__init__("redis-exporter")
        self._address = f"redis://127.0.0.1:{redis.port}"

    def command(self) -> list[str]:
        return [
            "env", f"REDIS_ADDR={self._address}", f"REDIS_PASSWORD={PASSWORD}",
            "prometheus-redis-exporter", f"-web.listen-address=127.0.0.1:{self.port}",
        ]  # fmt: skip
