"""Is the catalog whole, and does it agree with the keys and the archives?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from jivs.archive import chain
from jivs.domain.finding import Finding, Severity
from jivs.domain.run import Run, RunState
from jivs.errors import DamagedError, JivsError, SettingsError
from jivs.operations import users
from jivs.ports.service import Service
from jivs.ports.upkeep import Upkeep

_PAGE = 500
_PUBLISHED = {RunState.COMPLETED, RunState.INCOMPLETE}


@dataclass(kw_only=True)
class Report:
    """What was looked at, and what was found. ``audit_hash`` of the last entry: note it, a trail that is cut shows only
    against it. ``wrong_key``: passwords of sources do not open with ENCRYPTION_KEY.
    """

    catalog: str
    schema: str
    audit_entries: int = 0
    audit_hash: str = ""
    passwords: int = 0
    runs: int = 0
    archives: int = 0
    wrong_key: bool = False
    findings: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether there is nothing to mend."""
        return not any(finding.severity is Severity.ERROR for finding in self.findings)

    @property
    def damaged(self) -> bool:
        """Whether something is wrong besides the key."""
        return any(one.severity is Severity.ERROR and one.code != "wrong-key" for one in self.findings)

    def add(self, code: str, object_: str, message: str, severity: Severity = Severity.ERROR) -> None:
        """One more finding."""
        self.findings.append(Finding(code=code, severity=severity, object=object_, message=message))

    def to_json(self) -> dict[str, Any]:
        """As one document."""
        shown = {name: value for name, value in self.__dict__.items() if name not in {"findings", "wrong_key"}}
        return {**shown, "sound": self.sound, "findings": [finding.to_json() for finding in self.findings]}


def check(upkeep: Upkeep, service: Callable[[], Service]) -> Report:
    """Read all of the catalog, and the manifests of all archives that it tells of. ``service`` is asked for only if the
    schema is this version's: nothing is migrated by looking.
    """
    report = Report(catalog=upkeep.shown, schema=upkeep.version())
    if not report.schema:
        report.add("no-catalog", upkeep.shown, "There is no catalog: restore one, or start the service to make one.")
        return report
    try:
        for sentence in upkeep.faults():
            report.add("database", upkeep.shown, sentence)
    except DamagedError as error:
        report.add("database", upkeep.shown, error.message)
    if report.schema != upkeep.newest:
        older = report.schema < upkeep.newest
        what = "bring it up with jivs db upgrade" if older else "upgrade JiVS"
        report.add(
            "schema",
            upkeep.shown,
            f"It has schema {report.schema}, and this JiVS works on {upkeep.newest}: {what}, then check again.",
        )
    if report.sound:
        _agree(report, service())
    return report


def _agree(report: Report, service: Service) -> None:
    """Whether the catalog's records agree with each other, with the keys and with the archives."""
    try:
        end = users.verify_trail(service)
        report.audit_entries, report.audit_hash = end.entries, end.hash
    except DamagedError as error:
        report.add("audit", "audit trail", error.message)
    _passwords(report, service)
    _runs(report, service)


def _passwords(report: Report, service: Service) -> None:
    after = 0
    while page := service.registry().sources(after=after):
        after = page[-1].id
        for source in page:
            if not source.sealed:
                continue
            report.passwords += 1
            try:
                service.vault.open(source.sealed, source.place)
            except SettingsError as error:
                report.wrong_key = True
                report.add("wrong-key", f"source {source.name}", error.message)
            except JivsError as error:
                report.add("password", f"source {source.name}", error.message)


def _runs(report: Report, service: Service) -> None:
    published: dict[str, set[str] | None] = {}
    for run in _all_runs(service):
        report.runs += 1
        if run.archive not in published:
            published[run.archive] = _in_manifests(report, service, run.archive)
        known = published[run.archive]
        if known is None:
            continue
        if run.state in _PUBLISHED and run.id not in known:
            report.add(
                "not-published",
                f"run {run.id}",
                f"It is {run.state.value}, but no manifest of {run.archive} has it: the archive is gone, or an older one.",
            )
        elif run.state not in _PUBLISHED and run.id in known:
            report.add(
                "published",
                f"run {run.id}",
                f"It is {run.state.value}, and published in {run.archive}: the catalog is older than the archive"
                + ("." if run.state.ended else "; a worker finds it when it takes it up."),
                Severity.NOTE,
            )
    report.archives = len(published)


def _all_runs(service: Service) -> Iterator[Run]:
    before = 0
    while page := service.work().runs(before=before, limit=_PAGE):
        yield from page
        before = page[-1].seq


def _in_manifests(report: Report, service: Service, archive: str) -> set[str] | None:
    """The runs that an archive's manifests have; None if they cannot be read."""
    try:
        store = service.app.store(archive)
        return {chain.load(store, number).manifest.run_id for number in chain.numbers(store)}
    except DamagedError as error:
        report.add("archive", archive, error.message)
    except FileNotFoundError:
        report.add("archive", archive, "A manifest was removed while it was read.")
    return None
