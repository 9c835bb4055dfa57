"""Write (or, with --check, compare) the pages of docs/ that are made from the code: types, settings, command line."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

os.environ["COLUMNS"] = "110"
os.environ["NO_COLOR"] = "1"
os.environ["TERM"] = "dumb"

from typer.testing import CliRunner

from jivs.cli.config import rows as settings_rows
from jivs.cli.main import app
from jivs.connectors import BUILT_IN

DOCS = Path(__file__).parent.parent / "docs"
MADE = "<!-- Made by `make docs` from the code. Edit the code, not this page. -->\n\n"
TITLES = {"postgresql": "PostgreSQL", "mysql": "MySQL and MariaDB", "sqlite": "SQLite", "file": "Files"}
VERBS = (
    "demo",
    "discover",
    "plan",
    "extract",
    "verify",
    "inspect",
    "query",
    "serve",
    "worker",
    "user",
    "config",
    "db",
    "doctor",
)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def types() -> str:
    """The type contract of every connector."""
    page = MADE + (
        "# Types: what each source type becomes in the archive\n\n"
        "Fidelity `exact`: value and type are kept. `text`: the source's own text form is kept, and hashed as that text.\n"
        "`refused`: not archived, and said so. A value that its archive type cannot hold is never changed: it goes to\n"
        "quarantine with its bytes, or, if it is a real value of the source (infinity, 0000-00-00, the year 294276), as text\n"
        "to the column `<name>__text` beside it. Columns whose names are equal but for case are stored as `<name>__2`; the\n"
        "true name stands in the manifest.\n"
    )
    for module in dict.fromkeys(BUILT_IN.values()):
        connector = import_module(f"jivs.connectors.{module}").CONNECTOR
        rows = [[row.source, f"`{row.archive}`", row.fidelity, row.note] for row in connector.type_map]
        page += f"\n## {TITLES[module]}\n\n" + table(["source", "archive", "fidelity", "remark"], rows)
    return page


def sources() -> str:
    """Schemes and URL options of every connector."""
    page = MADE + (
        "# Sources\n\nA source is named by a connection URL: `kind://user:password@host:port/database?option=value`. "
        "`${NAME}` anywhere\nin it takes a value from the environment, so that no password need stand on a command line. "
        "A driver suffix\n(`postgresql+psycopg://`) and a `jdbc:` in front are accepted.\n"
    )
    for module in dict.fromkeys(BUILT_IN.values()):
        connector = import_module(f"jivs.connectors.{module}").CONNECTOR
        schemes = ", ".join(f"`{scheme}://`" for scheme, name in BUILT_IN.items() if name == module)
        rows = [
            [f"`{name}`", f"`{field.default}`" if field.default not in ("", None) else "", field.description or ""]
            for name, field in connector.options.model_fields.items()
        ]
        page += f"\n## {TITLES[module]}: {schemes}\n\n" + table(["option", "default", "meaning"], rows)
    return page


def settings() -> str:
    """All settings."""
    rows = [
        [f"`{row['setting']}`", f"`{row['also']}`" if row["also"] else "", f"`{row['default']}`" if row["default"] != "" else "",
         row["recommended"], row["meaning"]]
        for row in settings_rows()
    ]  # fmt: skip
    return (
        MADE
        + "# Settings\n\nRead from the environment, then from `jivs.toml` in the working folder (`[extraction]` holds the group's\n"
        "settings in lower case). Sizes are written as `512MiB`, `2GB` or a number of bytes. `jivs config show` prints what is\n"
        "in effect. Outside a recommended range there is one warning.\n\n"
        + table(["setting", "also", "default", "recommended", "meaning"], rows)
    )


def commands() -> str:
    """The help of every verb."""
    page = MADE + (
        "# Commands\n\nExit codes: 0 done and verified as asked; 1 unexpected error; 2 wrong usage or settings; 3 incomplete or "
        "not equal;\n4 the source's schema changed; 5 source, target or store unreachable (worth trying again); 130 interrupted, "
        "resumable.\n"
    )
    for verb in VERBS:
        result = CliRunner().invoke(app, [verb, "--help"], prog_name="jivs", terminal_width=110)
        text = "\n".join(line.rstrip() for line in result.output.strip().splitlines())
        page += f"\n## jivs {verb}\n\n```\n{text}\n```\n"
    return page


PAGES = {"types.md": types, "sources.md": sources, "settings.md": settings, "commands.md": commands}


def main() -> int:
    """Write the pages, or say which are not what the code says."""
    stale = []
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if "--check" in sys.argv:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"docs/{', docs/'.join(stale)}: not what the code says; run make docs")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
