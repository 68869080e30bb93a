"""Links lead somewhere, and nothing points to the machine that a page was written on."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, page_id, pages

LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|tmp|work|Users|var|mnt)/")
HEADING = re.compile(r"^#+ (?P<title>.*)$", re.MULTILINE)


def prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    return {
        re.sub(r"[^\w\- ]", "", match["title"].lower()).replace(" ", "-")
        for match in HEADING.finditer(prose(page))
    }


@pytest.mark.parametrize("page", pages(), ids=page_id)
def test_relative_links_resolve(page: Path) -> None:
    for match in LINK.finditer(prose(page)):
        target = match["target"]
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT), target
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), target


@pytest.mark.parametrize("page", pages(), ids=page_id)
def test_no_path_of_a_machine_is_shown(page: Path) -> None:
    assert MACHINE_PATH.search(page.read_text(encoding="utf-8")) is None


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = {match["target"] for match in LINK.finditer(index)}
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or page.name in linked, page.name
