"""benchmarks.tables: cells that Markdown would read as HTML."""

from benchmarks.tables import markdown


def test_names_in_angle_brackets_stay_visible():
    rows = [["kernel<Half>", "< 0.01", "a &lt; b"]]
    assert markdown(("kernel", "seconds", "text"), rows).splitlines()[-1] == (
        "| kernel&lt;Half> | < 0.01 | a &lt; b |"
    )
