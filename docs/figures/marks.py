"""Replace the generated text of a page, between ``<!-- name: begin -->`` and ``<!-- name: end -->``."""

from __future__ import annotations


def between_marks(page: str, name: str, text: str) -> str:
    """Return the page with this text between the marks of that name; raise ValueError if the page lacks them."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"the page has no marks for {name}")
    return f"{before}{begin}\n{text}\n{end}{after}"
