"""Every command in the README and the documentation exists, and its options exist."""

import argparse
import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from vos_pipeline.cli import command_line

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text().replace("\\\n", " ") for page in PAGES)
PIPELINE = sorted(
    set(re.findall(r"(?:spn-vos|python -m vos_pipeline|-m vos_pipeline) +((?!\.)[a-z][^`\n]*)", TEXT))
)
# A bare name in prose refers to the command and is not a call.
CALLS = [call for call in PIPELINE if "--" in call and "..." not in call]


def test_there_is_something_to_check():
    assert len(CALLS) >= 8 and len(MODULE_CALLS) >= 20


@pytest.mark.parametrize("call", CALLS)
def test_pipeline_calls_parse(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in re.findall(r"[\w/]+\.safetensors", call):  # written by an earlier command
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    argv = shlex.split(re.sub(r"[][]", "", call), comments=True)
    argv = [word.split("|")[0] for word in argv]
    assert callable(command_line().parse_args(argv).command)


# Calls of benchmarks and figures, without brackets around optional arguments and without comments.
MODULE_CALLS = sorted(
    {
        tuple(shlex.split(re.sub(r"[][]", "", call), comments=True))
        for call in re.findall(r"python -m ((?:benchmarks|docs\.figures)\.\w[^`\n]*)", TEXT)
    }
)


class Parsed(Exception):
    """Ends a command after its arguments were parsed."""


@pytest.mark.parametrize("call", MODULE_CALLS, ids=" ".join)
def test_benchmark_and_figure_calls_parse(call, monkeypatch):
    name, *arguments = call
    module = importlib.import_module(name)
    if not hasattr(module, "argparse"):
        assert not arguments, f"{name} has no options"
        return
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser, argv=None, namespace=None):
        parse_args(parser, argv, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(Parsed):
        module.main()


# Options in prose, too. These belong to pip, torchrun and hypothesis.
OTHERS = {"--no-build-isolation", "--nproc-per-node", "--hypothesis-profile"}
OPTIONS = sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+\b", TEXT)) - OTHERS)


@pytest.fixture(scope="module")
def known_options():
    """Return the options of every pipeline command, and those in the sources of other scripts."""

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


# In backticks or at the start of an indented or fenced line; elsewhere "make" is a verb.
@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"(?:`|^ *)make ([a-z-]+)(?=[`\s])", TEXT, re.MULTILINE)))
)
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
