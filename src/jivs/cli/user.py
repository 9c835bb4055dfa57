"""``jivs user``: accounts, for who can reach the catalog itself."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

import typer

from jivs.cli.frame import Output, OutputOption, build_service, clear_errors, console, show_json
from jivs.domain.access import Role, User

app = typer.Typer(help="Accounts of the service.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="User name.", show_default=False)]


@app.command("list")
def list_users(output: OutputOption = Output.TEXT) -> None:
    """List the accounts."""
    with clear_errors(output):
        service, _ = build_service()
        found: list[User] = []
        while page := service.accounts().users(after=found[-1].id if found else 0):
            found += page
        if output is Output.JSON:
            show_json(
                [
                    {"id": user.id, "username": user.username, "roles": sorted(user.roles), "active": user.active}
                    for user in found
                ]
            )
            return
        for user in found:
            closed = "" if user.active else "  closed"
            console().print(f"{user.id}  {user.username}  {', '.join(sorted(user.roles))}{closed}")


@app.command()
def add(
    name: NameArgument,
    role: Annotated[list[Role], typer.Option("--role", help="What the user is; may be given several times.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Make an account. The password is asked for, or read from standard input."""
    with clear_errors(output):
        from jivs.domain.source import Secret
        from jivs.operations import users

        service, _ = build_service()
        user = users.add(service, "command line", users.check_name(name), Secret(_password()), frozenset(role))
        if output is Output.JSON:
            show_json({"id": user.id, "username": user.username, "roles": sorted(user.roles)})
        else:
            console().print(f"User {user.username} was made.")


@app.command()
def password(name: NameArgument, output: OutputOption = Output.TEXT) -> None:
    """Set another password. It is asked for, or read from standard input. All sessions of the user end."""
    with clear_errors(output):
        from jivs.domain.source import Secret
        from jivs.operations import users

        service, _ = build_service()
        user = users.reset_password(service, "command line", name, Secret(_password()))
        if output is Output.JSON:
            show_json({"id": user.id, "username": user.username})
        else:
            console().print(f"User {user.username} has another password.")


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    return getpass.getpass("Password: ")
