"""``jivs config``: the settings in effect, and all there are."""

from __future__ import annotations

from typing import Any

import typer

from jivs.cli.frame import Output, OutputOption, clear_errors, console, show_json

app = typer.Typer(help="Show settings.", no_args_is_help=True)


def rows() -> list[dict[str, Any]]:
    """Every setting: its name in the environment, the guide's name, its default, its meaning, and the range that is
    recommended for it, with what it acts on.
    """
    from pydantic import BaseModel

    from jivs.settings import GUIDE_NAMES, RECOMMENDED, Settings

    guide = {path: name for name, path in GUIDE_NAMES.items()}
    found: list[dict[str, Any]] = []

    def walk(model: type[BaseModel], path: tuple[str, ...]) -> None:
        for name, field in model.model_fields.items():
            here = (*path, name)
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                walk(field.annotation, here)
                continue
            recommended = RECOMMENDED.get(here)
            found.append(
                {
                    "setting": "JIVS_" + "__".join(here).upper(),
                    "also": guide.get(here, ""),
                    "default": "" if field.default is None else field.default,
                    "recommended": f"{recommended.shown} ({recommended.impact})" if recommended else "",
                    "meaning": field.description or "",
                }
            )

    walk(Settings, ())
    return found


@app.command()
def schema(output: OutputOption = Output.TEXT) -> None:
    """Every setting with its default and its meaning."""
    with clear_errors(output):
        _show(rows(), output)


@app.command()
def show(output: OutputOption = Output.TEXT) -> None:
    """The settings in effect; what may hold a secret is starred out."""
    with clear_errors(output):
        from jivs import settings

        loaded: Any = settings.load()
        found = []
        for row in rows():
            value = loaded
            for part in row["setting"].removeprefix("JIVS_").lower().split("__"):
                value = getattr(value, part)
            shown = "***" if "url" in row["setting"].lower() and "@" in str(value) else value
            found.append({"setting": row["setting"], "value": shown, "default": row["default"]})
        _show(found, output)


def _show(found: list[dict[str, Any]], output: Output) -> None:
    if output is Output.JSON:
        show_json(found)
        return
    from rich.table import Table

    grid = Table(*found[0])
    for row in found:
        grid.add_row(*(str(value) for value in row.values()))
    console().print(grid)
