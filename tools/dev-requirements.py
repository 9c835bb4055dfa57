"""Print a group of requirements of pyproject.toml (dev, if none is named), for a pip that does not know groups yet."""

import sys
import tomllib
from pathlib import Path

pyproject = tomllib.loads(Path(__file__).parent.parent.joinpath("pyproject.toml").read_text(encoding="utf-8"))
print("\n".join(pyproject["dependency-groups"][sys.argv[1] if len(sys.argv) > 1 else "dev"]))
