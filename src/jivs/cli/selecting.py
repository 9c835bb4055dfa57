"""Options that say what of a source is meant; shared by the verbs that take them."""

from __future__ import annotations

from typing import Annotated

import typer

from jivs.domain.plan import Selection
from jivs.errors import UsageError

UrlArgument = Annotated[str, typer.Argument(help="Connection URL; ${NAME} takes a secret from the environment.")]
ToOption = Annotated[
    str, typer.Option("--to", help="Folder of the archive, made if it is not there, or s3://bucket/prefix.")
]
TableOption = Annotated[
    list[str] | None, typer.Option("--table", help="Table or pattern, with or without schema: 'sales.*'. Repeatable.")
]
ExcludeOption = Annotated[list[str] | None, typer.Option("--exclude", help="Table or pattern to leave out. Repeatable.")]
QueryOption = Annotated[
    list[str] | None, typer.Option("--query", help="NAME=SELECT ..., archived as table NAME. Repeatable.")
]
ColumnsOption = Annotated[str | None, typer.Option("--columns", help="Only these columns: a,b,c.")]
WhereOption = Annotated[str, typer.Option("--where", help="Only rows that meet this condition, in the source's SQL.")]
InferOption = Annotated[
    bool, typer.Option("--infer", help="Files: choose types of CSV columns from a pass over the whole file.")
]
TypesOption = Annotated[str, typer.Option("--types", help="Files: types of CSV columns, id:int64,price:decimal(10;2).")]
SourceNameOption = Annotated[str, typer.Option("--source-name", help="Name of the source in the archive.")]


def file_options(infer: bool, types: str) -> dict[str, str]:
    """The options of the URL that --infer and --types stand for."""
    return {**({"infer": "true"} if infer else {}), **({"types": types} if types else {})}


def selection(
    table: list[str] | None, exclude: list[str] | None, query: list[str] | None, columns: str | None, where: str
) -> Selection:
    """The options as one value. Raises UsageError for a query without a name."""
    queries = []
    for item in query or ():
        name, separator, sql = item.partition("=")
        if not separator or not name.strip() or not sql.strip():
            raise UsageError("--query needs a name: --query 'recent=SELECT ... FROM ...'")
        queries.append((name.strip(), sql.strip()))
    if len({name for name, _ in queries}) != len(queries):
        raise UsageError("--query: two queries have the same name.")
    return Selection(
        tables=tuple(table or ()),
        exclude=tuple(exclude or ()),
        queries=tuple(queries),
        columns=tuple(part.strip() for part in (columns or "").split(",") if part.strip()),
        where=where.strip(),
    )
