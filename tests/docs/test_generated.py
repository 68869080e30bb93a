"""Parts of the documentation that are made from the code, or list what is in it, are current."""

from pathlib import Path

import pytest

from tests.docs.generated import PARTS, part_names, regenerated
from tests.docs.pages import page_id, pages


@pytest.mark.parametrize("page", pages(), ids=page_id)
def test_generated_parts_are_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == regenerated(text), "run python -m tests.docs.update"


def test_every_generated_part_stands_in_one_page() -> None:
    names = [name for page in pages() for name in part_names(page.read_text(encoding="utf-8"))]
    assert sorted(names) == sorted(PARTS)
