#!/opt/jivs/bin/python
"""The entry point of the image: the settings of a file named by ``JIVS_ENV_FILE``, then the command.

Compose reads ``.env`` when a container is made, not when it is restarted. The file is read here at every start, so
``docker-compose restart backend`` takes what was changed in it. What the file says wins; an empty value says nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dotenv import dotenv_values


def environment(given: dict[str, str]) -> dict[str, str]:
    """The environment of the command. Raises OSError where the file that is named cannot be read."""
    name = given.get("JIVS_ENV_FILE")
    if not name:
        return given
    with Path(name).open(encoding="utf-8") as file:
        values = dotenv_values(stream=file, interpolate=False)
    return given | {key: value for key, value in values.items() if value}


def main() -> None:
    """Become the command."""
    try:
        found = environment(dict(os.environ))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        sys.exit(
            f"The settings in {os.environ['JIVS_ENV_FILE']} cannot be read: {reason}. "
            f"Let user {os.getuid()} read the file (chmod 644 .env, or chown it), then start again."
        )
    if len(sys.argv) < 2:
        sys.exit("Name a command: jivs serve, or jivs worker.")
    try:
        os.execvpe(sys.argv[1], sys.argv[1:], found)  # noqa: S606 - to become the command is what it is for
    except OSError as error:
        sys.exit(f"{sys.argv[1]} cannot be started: {error.strerror}.")


if __name__ == "__main__":
    main()
