"""What the pages point to is there, and every page can be found from the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))


def links(page: Path) -> list[Path]:
    found = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    return [(page.parent / target).resolve() for target in found if "://" not in target]


@pytest.mark.parametrize("page", [README, *PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in links(page) if not target.exists()] == []


def test_readme_leads_to_every_page() -> None:
    assert set(PAGES) <= set(links(README))


def test_readme_snippets_for_a_shell_leave_its_own_variables_alone() -> None:
    assert not re.findall(r"\b(?:USER|HOME|PASSWORD|URL)=", README.read_text())
