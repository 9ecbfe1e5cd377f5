"""One table in four formats."""

from vos_pipeline.evaluation import Table

TABLE = Table(
    "A <title>",
    ("", "J", "note"),
    [("long name", 0.5, "a,b"), ("x", float("nan"), None), ("n", 12345, 1 / 3)],
)


def test_columns_of_text_line_up():
    assert TABLE.text().splitlines() == [
        "               J   note",
        "long name  0.500    a,b",
        "x              -      -",
        "n          12345  0.333",
    ]


def test_markdown_has_the_title_and_a_rule():
    assert TABLE.markdown().splitlines() == [
        "A <title>",
        "",
        "|           |     J |  note |",
        "| :-------- | ----: | ----: |",
        "| long name | 0.500 |   a,b |",
        "| x         |     - |     - |",
        "| n         | 12345 | 0.333 |",
    ]


def test_csv_keeps_all_digits_by_default():
    assert TABLE.csv().splitlines() == [
        ",J,note",
        'long name,0.5,"a,b"',
        "x,nan,",
        "n,12345,0.3333333333333333",
    ]
    assert TABLE.csv(digits=3).splitlines() == [",J,note", 'long name,0.500,"a,b"', "x,nan,", "n,12345,0.333"]


def test_html_is_escaped():
    page = TABLE.html()
    assert "<caption>A &lt;title&gt;</caption>" in page and "<th>J</th><th>note</th>" in page
    assert (
        "<tr><td>long name</td><td>0.500</td><td>a,b</td></tr><tr><td>x</td><td>–</td><td>–</td></tr>" in page
    )
