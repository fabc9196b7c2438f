"""Pages of the documentation whose figures are written by the command that measured them."""

from __future__ import annotations

from pathlib import Path

from wavenet.errors import UserError


def fill(page: Path, text: str, section: str) -> None:
    """Put `text` between the section's markers. Raises UserError when they are not there."""
    begin, end = f"<!-- {section}:begin -->", f"<!-- {section}:end -->"
    whole = page.read_text(encoding="utf-8") if page.is_file() else ""
    if begin not in whole or end not in whole:
        raise UserError(f"{page}: found no markers, expected {begin} ... {end}")
    before, after = whole[: whole.index(begin) + len(begin)], whole[whole.index(end) :]
    page.write_text(f"{before}\n{text}\n{after}", encoding="utf-8")
