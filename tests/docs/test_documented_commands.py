"""Every command that the README or a page of the site shows is one that there is, with options that there are."""

import argparse
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from vos_pipeline.cli import command_line

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
PIPELINE = sorted(
    set(re.findall(r"(?:spn-vos|python -m vos_pipeline|-m vos_pipeline) +((?!\.)[a-z][^`\n]*)", TEXT))
)
# A bare name, in prose, is a reference to the command and not a call.
CALLS = [call for call in PIPELINE if "--" in call and "..." not in call]


def test_there_is_something_to_check():
    assert len(CALLS) >= 8


@pytest.mark.parametrize("call", CALLS)
def test_pipeline_calls_parse(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in re.findall(r"[\w/]+\.safetensors", call):  # what a command before it wrote
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    argv = shlex.split(re.sub(r"[][]", "", call), comments=True)
    argv = [word.split("|")[0] for word in argv]
    assert callable(command_line().parse_args(argv).command)


# In prose too. Options of pip, torchrun and hypothesis are theirs.
OTHERS = {"--no-build-isolation", "--nproc-per-node", "--hypothesis-profile"}
OPTIONS = sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+\b", TEXT)) - OTHERS)


@pytest.fixture(scope="module")
def known_options():
    """Those of every command of the pipeline, and what the sources of other scripts spell out."""

    def options(parser):
        for action in parser._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for sub in action.choices.values():
                    yield from options(sub)

    folders = (ROOT / "benchmarks", ROOT / "docs" / "figures", ROOT / "tests" / "emulator")
    scripts = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    return set(options(command_line())) | set(re.findall(r'"(--[a-z-]+)"', scripts))


@pytest.mark.parametrize("option", OPTIONS)
def test_options_exist(option, known_options):
    assert option in known_options


@pytest.mark.parametrize(
    "module", sorted(set(re.findall(r"python -m ((?:benchmarks|docs)(?:\.\w+)+)", TEXT)))
)
def test_modules_exist(module):
    assert importlib.util.find_spec(module)


@pytest.mark.parametrize(
    "script", sorted(set(re.findall(r"python ((?:docs|tests|benchmarks)/[\w/]+\.py)", TEXT)))
)
def test_scripts_exist(script):
    assert (ROOT / script).is_file()


# In backticks or at the start of an indented or fenced line: elsewhere "make" is a verb.
@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:`|^ *)make ([a-z-]+)(?=[`\s])", TEXT, re.MULTILINE)))
)
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
