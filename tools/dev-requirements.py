"""Print the development requirements of pyproject.toml, for a pip that does not know dependency groups yet."""

import tomllib
from pathlib import Path

pyproject = tomllib.loads(Path(__file__).parent.parent.joinpath("pyproject.toml").read_text(encoding="utf-8"))
print("\n".join(pyproject["dependency-groups"]["dev"]))
