"""The archives of extractions that name none."""

from __future__ import annotations

import pytest

from jivs.domain.registry import archive_name_of, is_archive_name

ALIKE = ["sales", "Sales!", "Sales?", "Sales ü", "sales.", "sales 2024", "sales-2024", "sales_2024", "訂單", "客戶", "!", "?", ".sales", "x" * 90 + "!a", "x" * 90 + "!b"]  # fmt: skip


def test_no_two_extractions_have_the_same_archive() -> None:
    made = [archive_name_of(name) for name in ALIKE]
    assert len(set(made)) == len(ALIKE)
    assert all(map(is_archive_name, made)), made


@pytest.mark.parametrize(
    ("name", "archive"), [("Sales", "sales"), ("sales_2024.q1", "sales_2024.q1"), ("x" * 100, "x" * 100)]
)
def test_what_can_be_an_archives_name_is(name: str, archive: str) -> None:
    assert archive_name_of(name) == archive


def test_what_can_be_read_of_a_name_stays() -> None:
    assert archive_name_of("Sales 2024").startswith("sales-2024-")
    assert archive_name_of("客戶").startswith("extraction-")
