"""What a scrape says, name by name."""

from __future__ import annotations

import re

_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
Key = tuple[str, tuple[tuple[str, str], ...]]


def samples(text: str) -> dict[Key, float]:
    """Name and labels of every sample with its value, as Prometheus itself reads them: names stay as they are."""
    found: dict[Key, float] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = _SAMPLE.fullmatch(line)
        assert match is not None, line
        key = match[1], tuple(sorted(_LABEL.findall(match[2] or "")))
        assert key not in found, line
        found[key] = float(match[3])
    return found


def value(text: str, name: str, **labels: str) -> float | None:
    """The value of one sample; None if it is not there."""
    return samples(text).get((name, tuple(sorted(labels.items()))))
