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
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value.split()) > 2:
            yield node.lineno, node.value


def prose(path):
    text = path.read_text()
    if path.suffix == ".py":
        yield from python_prose(text)
    elif path.suffix == ".md":
        yield 1, re.sub(r"```(?:python|sh|\{doctest\}|\{code-block\}).*?```", "", text, flags=re.DOTALL)
    else:
        # Neighbouring comment lines are one text: a habit may span two lines.
        marker = "//" if path.suffix in {".h", ".cpp", ".cu"} else "#"
        block = "".join(rf"(?:^.*{marker}.*\n)+")
        for match in re.finditer(block, text, re.MULTILINE):
            lines = [line.partition(marker)[2] for line in match.group().splitlines()]
            yield text.count("\n", 0, match.start()) + 1, "\n".join(lines)


def habits_in(path):
    for line, text in prose(path):
        text = re.sub(r"`[^`\n]*`|https?://\S+", "", text)
        flat = re.sub(r"\s*\n\s*(?:#|//)?\s*", " ", text)
        for habit, advice in HABITS.items():
            for match in re.finditer(habit, flat, re.IGNORECASE):
                yield f"{path.relative_to(ROOT)}:{line}: {match.group()!r}: {advice}"


@pytest.mark.parametrize("suffix", [".md", ".py", ".h", ".cpp", ".cu", ".sh", ".html"])
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
def test_the_habits_are_found(sentence, tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(f"It needs {sentence.replace(' ', chr(10), 1)}.")
    assert list(habits_in(page))
