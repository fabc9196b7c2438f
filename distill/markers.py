"""Pages of the documentation whose figures are written by the command that measured them."""

from __future__ import annotations

import os
from pathlib import Path

from wavenet.errors import UserError


def check(page: Path, section: str) -> None:
    """Raise UserError where the page or the section's markers are not there."""
    _parts(page, section)


def fill(page: Path, text: str, section: str) -> None:
    """Put `text` between the section's markers; the page is whole at every moment. Raises UserError as `check`."""
    before, after = _parts(page, section)
    temporary = page.with_name(f".{page.name}.{os.getpid()}.tmp")
    temporary.write_text(f"{before}\n{text}\n{after}", encoding="utf-8")
    os.replace(temporary, page)


def _parts(page: Path, section: str) -> tuple[str, str]:
    begin, end = f"<!-- {section}:begin -->", f"<!-- {section}:end -->"
    whole = page.read_text(encoding="utf-8") if page.is_file() else ""
    if begin not in whole or end not in whole:
        raise UserError(f"{page}: found no markers, expected {begin} ... {end}")
    return whole[: whole.index(begin) + len(begin)], whole[whole.index(end) :]
