"""Generated text in a page stands between ``<!-- name: begin -->`` and ``<!-- name: end -->``."""

from __future__ import annotations


def between_marks(page: str, name: str, text: str) -> str:
    """The page with this text between the marks of that name; ValueError where it has no such marks."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"the page has no marks for {name}")
    return f"{before}{begin}\n{text}\n{end}{after}"
