"""Text between marks is replaced, the rest of the page stays, and missing marks are an error."""

import pytest

from docs.figures.marks import between_marks

PAGE = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n<!-- y: begin -->\n<!-- y: end -->\n"


def test_only_the_text_between_the_named_marks_changes():
    assert between_marks(PAGE, "x", "new\\1") == PAGE.replace("old", "new\\1")
    filled = between_marks(PAGE, "y", "new")
    assert filled == PAGE.replace("<!-- y: begin -->\n", "<!-- y: begin -->\nnew\n")
    assert between_marks(filled, "y", "new") == filled


@pytest.mark.parametrize("page", ["", "<!-- x: begin -->\n", "<!-- x: end -->\n<!-- x: begin -->\n"])
def test_a_page_without_the_marks(page):
    with pytest.raises(ValueError, match="no marks for x"):
        between_marks(page, "x", "new")
