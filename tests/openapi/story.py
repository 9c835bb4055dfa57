"""The examples of the document, sent to a real service one after the other."""

from __future__ import annotations

import json
import time
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import httpx

EXAMPLES: dict[str, dict[str, Any]] = json.loads(
    resources.files("jivs.api").joinpath("examples.json").read_text(encoding="utf-8")
)
PLACE = "postgresql://reader@db.example:5432/sales"
SECRET = "what the database knows"
"""The address of the source in the examples, and its password."""

_ENDED = frozenset({"COMPLETED", "INCOMPLETE", "FAILED", "CANCELLED"})


class Story:
    """``answers``: what the service said to each operation that was told."""

    def __init__(self, client: httpx.Client, document: dict[str, Any], *, password: str, source: str) -> None:
        self.answers: dict[str, httpx.Response] = {}
        self._client = client
        self._password = password
        self._source = source
        self._secret = urlsplit(source).password or ""
        self._operations = {
            operation["operationId"]: (method, path)
            for path, item in document["paths"].items()
            for method, operation in item.items()
        }

    def tell(self, name: str, /, *, number: int = 1, body: Any = None, match: str = "", **parameters: str) -> httpx.Response:
        """Send an operation's example. ``body`` holds what only the test knows; ``match`` goes into If-Match."""
        method, path = self._operations[name]
        for part in ("user_id", "source_id", "extraction_id", "schedule_id"):
            path = path.replace(f"{{{part}}}", str(number))
        for part, value in parameters.items():
            path = path.replace(f"{{{part}}}", value)
        sent = EXAMPLES.get(name, {}).get("request")
        if sent is not None:
            sent = json.loads(
                json.dumps({**sent, **(body or {})}).replace(PLACE, self._source).replace(SECRET, self._secret)
            )
        headers = {"If-Match": match} if match else {}
        self.answers[name] = self._client.request(method, path, json=sent, headers=headers)
        return self.answers[name]

    def all(self) -> None:
        """From the first login to the last logout."""
        self._people()
        self._sources()
        self._runs()
        self._schedules()
        self._archives()
        for name in ("getPreferences", "listAuditEntries"):
            self.tell(name)
        noted = self.answers["listAuditEntries"].json()["items"][1]
        self.tell("verifyAuditTrail", body={"entries": noted["seq"], "hash": noted["hash"]})
        self.tell("putPreferences", match='"0"')
        for name in ("getHealth", "getLiveness", "getReadiness", "getInfo", "getMetrics"):
            self.tell(name)
        for name in ("removeSchedule", "removeExtraction", "removeSource"):
            self.tell(name)
        self.tell("removeUser", number=2)
        self._end()

    def _people(self) -> None:
        session = self.tell("logIn", body={"password": self._password}).json()
        self._client.headers["Authorization"] = f"Bearer {session['accessToken']}"
        self.tell("getCurrentUser")
        self.tell("addUser")
        self.tell("listUsers")
        self.tell("changeUser", number=2, match=self.tell("getUser", number=2).headers["ETag"])
        self.tell("changePassword", number=2)

    def _sources(self) -> None:
        self.tell("addSource")
        self.tell("listSources")
        self.tell("changeSource", match=self.tell("getSource").headers["ETag"])
        for name in ("trySource", "listSourceTables", "turnKeys", "tryConnection"):
            self.tell(name)

    def _runs(self) -> None:
        self.tell("addExtraction")
        self.tell("changeExtraction", match=self.tell("getExtraction").headers["ETag"])
        for name in ("stopExtraction", "resumeExtraction"):
            self._held_then(name)
            self._wait()
        run = self.tell("startExtraction").json()["id"]
        self._wait()
        self.tell("getRun", run_id=run)
        self.tell("listPartitions", run_id=run)
        for name in ("listRuns", "getExtractionStatistics", "listExtractionLogs", "changeManyExtractions"):
            self.tell(name)
        self._wait()
        self.tell("getExtraction")
        self.tell("listExtractions")

    def _held_then(self, name: str) -> None:
        """With a run that is paused; a quick one may end before it is, or before it hears more."""
        end = time.monotonic() + 60
        while self._settled("startExtraction", "pauseExtraction") != "PAUSED" or self.tell(name).status_code != 202:
            assert time.monotonic() < end, self.tell("listRuns").text

    def _settled(self, *names: str) -> str:
        for name in names:
            self.tell(name)
        while (state := self.tell("getExtraction").json()["status"]) not in {*_ENDED, "PAUSED"}:
            time.sleep(0.02)
        return state

    def _wait(self) -> None:
        end = time.monotonic() + 60
        while self.tell("getExtraction").json()["status"] not in _ENDED:
            assert time.monotonic() < end, self.tell("listRuns").text
            time.sleep(0.05)

    def _schedules(self) -> None:
        self.tell("addSchedule")
        self.tell("listSchedules")
        self.tell("changeSchedule", match=self.tell("getSchedule").headers["ETag"])
        self.tell("previewSchedule")

    def _archives(self) -> None:
        self.tell("listArchives")
        for name in ("getArchive", "getManifest", "listManifests", "verifyArchive", "queryArchive"):
            self.tell(name, name="sales")
        files = self.tell("listArchiveFiles", name="sales").json()["items"]
        self.tell("downloadFile", name="sales", path=files[0]["path"])

    def _end(self) -> None:
        known = self.answers["logIn"].json()["refreshToken"]
        session = self.tell("refreshSession", body={"refreshToken": known}).json()
        self.tell("logOut", body={"refreshToken": session["refreshToken"]})
