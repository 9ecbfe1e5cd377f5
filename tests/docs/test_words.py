"""Prose avoids habits that make readers stop (CONTRIBUTING.md, "Writing"): pages, docstrings, comments and messages."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("benchmarks", "csrc", "docs", "spn", "tests", "vos_pipeline")

RATED = (
    r"(?:seconds?|s|ms|milliseconds?|minutes|cycles|bytes|KB|MB|elements|gates|instructions|registers|launch(?:es)?|"
    r"barriers?|sectors|threads|warps?|values|channels|blocks?|steps|rows?|masks?|lines|files?|numbers)"
)
UNIT = (
    r"(?:pixel|frame|image|line|step|object|batch|second|row|column|thread|lane|warp|block|multiprocessor|channel|group|gate|"
    r"plane|launch|pass|call|sequence|video|sample|file|folder|method|element|value|checkpoint|stage|case|kind|direction)"
)
HABITS = {
    rf"\b{RATED} an? {UNIT}\b": "write 'per' for rates: 'one row per checkpoint'",
    r"\bpictures?\b(?!:)": "write 'image', or 'figure' for an illustration",
    r"\b(?:is|are|was|were) to be had\b": "write 'is available'",
    r"\bin place of\b": "write 'instead of'",
    r"\banew\b": "write 'again'",
    r"\bso manieth\b": "write 'every n-th'",
    r"\bthe truth\b": "write 'ground truth'",
    r"\bdecides? otherwise\b": "write 'overrides'",
    r"\btells? (?:what|which|how|where|why|when)\b": "write 'reports', 'prints' or 'explains'",
    r"\bwhat of (?:it|its|them|the|a)\b": "name the part",
    r"\bwhat (?:comes|came|becomes|became) of\b": "name the result",
    r"\b(?:go|goes|went) on (?:with|behind|from|where|after)\b": "write 'continue'",
    r"\bof (?:his|her|one's) own\b": "write 'a user's'",
    r"\bhas? to be paid\b": "write what it costs",
}
# Text that the pages quote or that other programs match.
ALLOWED = {"tests/docs/test_words.py", "CONTRIBUTING.md"}


def tracked(*suffixes):
    files = [
        ROOT / name for name in ("README.md", "CHANGELOG.md", "Makefile", "setup.py", "build_kernels.py")
    ]
    files += [path for package in PACKAGES for path in (ROOT / package).rglob("*")]
    skipped = {"_build", "auto_gallery", "__pycache__", "results"}
    return [f for f in files if f.is_file() and f.suffix in suffixes and not skipped & set(f.parts)]


def python_prose(text):
    """Yield (line, text) of comments, and of strings that are sentences."""
    comments = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type == tokenize.COMMENT]
    yield from joined((token.start[0], token.string) for token in comments)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value.split()) > 2:
            yield node.lineno, node.value


def joined(lines):
    """Join (number, text) of neighbouring lines: a habit may span two lines."""
    start, texts = 0, []
    for number, text in lines:
        if texts and number != start + len(texts):
            yield start, "\n".join(texts)
            texts = []
        start = start if texts else number
        texts.append(text)
    if texts:
        yield start, "\n".join(texts)


def prose(path):
    """Yield (line, text) of everything in a file that people read."""
    text = path.read_text()
    if path.suffix == ".py":
        yield from python_prose(text)
    elif path.suffix in {".md", ".html"}:
        code = r"```(?:python|sh|\{doctest\}|\{code-block\}).*?```"
        text = re.sub(code, lambda match: "\n" * match.group().count("\n"), text, flags=re.DOTALL)
        yield from joined((n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip())
    else:
        marker = "//" if path.suffix in {".h", ".cpp", ".cu"} else "#"
        lines = enumerate(text.split("\n"), 1)
        yield from joined((n, line.partition(marker)[2]) for n, line in lines if marker in line)


def habits_in(path):
    for line, text in prose(path):
        text = re.sub(r"`[^`\n]*`|https?://\S+", "", text)
        flat = re.sub(r"\s*\n\s*(?:#|//)?\s*", " ", text)
        for habit, advice in HABITS.items():
            for match in re.finditer(habit, flat, re.IGNORECASE):
                yield f"{path.relative_to(ROOT)}:{line}: {match.group()!r}: {advice}"


@pytest.mark.parametrize("suffix", [".md", ".py", ".h", ".cpp", ".cu", ".sh", ".html", ""])
def test_prose_has_none_of_the_habits(suffix):
    found = [
        habit
        for path in tracked(suffix)
        if str(path.relative_to(ROOT)) not in ALLOWED
        for habit in habits_in(path)
    ]
    assert not found, "\n".join(found)


SENTENCES = (
    "one launch a pass",
    "12 gates a pixel",
    "seconds a frame",
    "the picture's edges",
    "3.3 KB are to be had",
)


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("page.md", "# Page\n\nIt needs {}.\n"),
        ("page.html", "<body>\n<p>It needs {}.</p>\n"),
        ("comment.py", "x = 1  # Here.\n# It needs {}.\n"),
        ("docstring.py", '"""It needs {}."""\n'),
        ("header.h", "int x;  // It needs {}.\n"),
        ("Makefile", "# It needs {}.\nall:\n"),
    ],
)
def test_the_habits_are_found(sentence, name, page, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    marker = {".py": "\n# " if name == "comment.py" else "\n", ".h": "\n// ", "": "\n# "}
    path = tmp_path / name
    path.write_text(page.format(sentence.replace(" ", marker.get(path.suffix, "\n"), 1)))
    assert list(habits_in(path))
