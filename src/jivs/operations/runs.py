"""The service's runs, as users see them: started, stopped, paused, resumed."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta

from jivs.archive import chain
from jivs.archive import runs as records
from jivs.domain.archive import Manifest
from jivs.domain.audit import Deed
from jivs.domain.run import Command, Run, RunState
from jivs.errors import ConflictError, JivsError, NotFoundError
from jivs.operations import extractions, shelf
from jivs.operations._run_id import new_run_id
from jivs.ports.cache import CacheName
from jivs.ports.clock import stamp
from jivs.ports.service import Service

_LOG = logging.getLogger(__name__)
_CLOCKS_DIFFER = timedelta(days=1)


def start(service: Service, actor: str, extraction_id: int) -> Run:
    """Ask for a run; a worker takes it up. Raises ConflictError if the extraction refuses a second one."""
    extraction = extractions.get(service, extraction_id)
    run_id = new_run_id(service.clock)
    deed = Deed(actor=actor, action="run.started", object=f"extraction:{extraction.name}", detail={"run": run_id})
    run = service.work().submit(extraction, run_id, service.shelf.address(extraction.job.archive), actor, deed)
    service.cache.drop(CacheName.EXTRACTION_STATS, str(extraction_id))
    service.queue.publish(run.id)
    return run


def command(service: Service, actor: str, extraction_id: int, wanted: Command) -> Run:
    """Tell the extraction's run that has not ended what to do: of several the oldest that has begun, or else the oldest.

    Raises ConflictError if there is none, or if its state forbids it.
    """
    extraction = extractions.get(service, extraction_id)
    in_turn = [{RunState.RUNNING, RunState.PAUSED}, {RunState.PENDING}]
    oldest = (service.work().runs(extraction_id=extraction_id, states=one, limit=1, oldest=True) for one in in_turn)
    run = next((found[0] for found in oldest if found), None)
    if run is None:
        raise ConflictError(f"Extraction {extraction_id} has no run that has not ended: there is nothing to {wanted.value}.")
    doubtful: bool | None = None
    if wanted is Command.STOP and run.started_at and not run.connections:
        try:
            found, doubtful = published(service, run), False
        except Exception as error:  # whatever it is, nobody can say
            found, doubtful = None, True
            _LOG.info("Whether run %s is published cannot be told.", run.id, exc_info=error)
        if found is not None and run.lease_until is None:
            if run.state is RunState.PAUSED:  # nobody would look at it
                command(service, actor, extraction_id, Command.RESUME)
            raise ConflictError(f"Run {run.id} is published: a worker finds it so, and ends it. There is nothing to stop.")
    deed = Deed(actor=actor, action=f"run.{wanted.value}", object=f"extraction:{extraction.name}", detail={"run": run.id})
    changed = service.work().command(run.id, wanted, deed, doubtful=doubtful)
    service.cache.drop(CacheName.EXTRACTION_STATS, str(extraction_id))
    if changed.state is RunState.PENDING:
        service.queue.publish(run.id)
    if changed.state is RunState.CANCELLED and run.epoch:
        with suppress(JivsError):  # the next sweep removes them
            records.abandon(service.app.store(run.archive), run.id)
    return changed


def published(service: Service, run: Run) -> Manifest | None:
    """The manifest with which the run published what it read, if it has. Raises StoreError, also where the archives are not
    at hand, and DamagedError.
    """
    store = service.app.store(run.archive)
    for number in reversed(chain.numbers(store)):
        manifest = chain.load(store, number).manifest
        if manifest.created < stamp(run.created_at - _CLOCKS_DIFFER):
            return None
        if manifest.run_id == run.id:
            return manifest
    shelf.at_hand(service)  # a folder whose volume is not mounted has no manifests either
    return None


def get(service: Service, extraction_id: int, run_id: str) -> Run:
    """A run of an extraction. Raises NotFoundError."""
    run = service.work().run(run_id)
    if run is None or run.extraction_id != extraction_id:
        raise NotFoundError(f"Extraction {extraction_id} has no run {run_id}.")
    return run
