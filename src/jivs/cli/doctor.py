"""``jivs doctor``: what is here, and what to mend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from jivs.cli import exits
from jivs.cli.frame import Output, OutputOption, clear_errors, console, load_settings, show_json

if TYPE_CHECKING:
    from jivs.operations.doctor import Examination


def doctor(output: OutputOption = Output.TEXT) -> None:
    """Look at the environment: versions, settings (which are set, never to what), the catalog, the archives, limits.

    Exit code 3 if something has to be mended. The output has no secrets and belongs into every report of a problem.
    """
    with clear_errors(output):
        from jivs import bootstrap, settings
        from jivs.operations.doctor import Setup, examine

        loaded = load_settings()
        found = examine(
            Setup(
                settings=settings.given(loaded),
                notices=[*settings.notices(loaded), *settings.unknown()],
                sizes=bootstrap.sizes(loaded),
            ),
            bootstrap.machine(),
            bootstrap.build_upkeep(loaded),
            lambda: bootstrap.build_service(loaded),
        )
        if output is Output.JSON:
            show_json(found.to_json())
        else:
            _show(found)
        raise typer.Exit(exits.DONE if found.well else exits.INCOMPLETE)


def _show(found: Examination) -> None:
    out = console()
    for title, facts in found.sections.items():
        out.print(f"{title}:")
        if title == "settings":
            out.print(f"  set: {', '.join(name for name, state in facts.items() if state == 'set') or 'none'}")
            continue
        for name, value in facts.items():
            out.print(f"  {name}: {_line(value)}")
    for finding in found.findings:
        out.print(
            f"{'MEND' if finding.code == 'mend' else finding.severity.value.upper()} {finding.object}: {finding.message}"
        )
    out.print("All is well." if found.well else "Something has to be mended.")


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
