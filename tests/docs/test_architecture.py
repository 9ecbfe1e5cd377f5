"""docs/architecture.md and the tree agree: files, functions, and which package may import what."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import spn

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("csrc", "spn", "vos_pipeline", "benchmarks", "docs/figures")
SUFFIXES = {".py", ".h", ".cpp", ".cu", ".cuh", ".sh", ".html"}

NAMED = sorted(set(re.findall(rf"`((?:{'|'.join(PACKAGES)}|docs|tests)/[\w./-]+)`", PAGE.read_text())))
SOURCES = sorted(
    str(path.relative_to(ROOT))
    for package in PACKAGES
    for path in (ROOT / package).rglob("*")
    if path.suffix in SUFFIXES and path.stat().st_size > 0
)


def test_there_is_something_to_compare():
    assert len(NAMED) > 50 and len(SOURCES) > 50


@pytest.mark.parametrize("name", NAMED)
def test_what_the_page_names_exists(name):
    assert (ROOT / name).exists(), (
        f"docs/architecture.md names {name}, which is gone: remove or rename it there"
    )


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_file_is_named(name):
    first = next((line for line in (ROOT / name).read_text().splitlines() if len(line.split()) > 3), "")
    assert name in NAMED, (
        f"docs/architecture.md does not name {name}: add a row  | `{name}` | the one thing it knows |  "
        f"(the file begins: {first.strip()!r})"
    )


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (name, file)
        for names, file in re.findall(r"((?:`\w+`(?:, )?)+) in `([\w./]+)`", PAGE.read_text())
        for name in re.findall(r"\w+", names)
    ],
)
def test_functions_are_where_the_page_says(name, file):
    assert re.search(rf"\b{name}\b", (ROOT / file).read_text()), f"no {name} in {file}"


# ---- Who may import what -------------------------------------------------------------------------------------


def imports(path):
    """(module, imported name or None, whether it is made when the file is imported) of every absolute import."""
    tree = ast.parse(path.read_text())
    at_once = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None, id(node) in at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.module, alias.name, id(node) in at_once) for alias in node.names)


@pytest.mark.parametrize("path", sorted((ROOT / "spn").glob("*.py")), ids=lambda path: path.name)
def test_spn_needs_torch_alone(path):
    for module, _, at_once in imports(path):
        package = module.split(".")[0]
        allowed = {"torch", *sys.stdlib_module_names} | (set() if at_once else {"torchvision", "onnxscript"})
        assert package in allowed, f"{path.name} imports {module}"


PIPELINE = sorted((ROOT / "vos_pipeline").rglob("*.py"))


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PIPELINE, ids=name_of)
def test_the_pipeline_uses_public_names_of_spn(path):
    used = {(module, name) for module, name, _ in imports(path) if module.split(".")[0] == "spn"}
    assert {module for module, _ in used} <= {"spn"}, "names come from spn itself, not from its modules"
    names = {name for _, name in used if name} | set(re.findall(r"\bspn\.(\w+)", code_of(path)))
    assert names <= set(spn.__all__)


# The rooms of the pipeline, from the ground up. A room imports from those below it what they export, and nothing else.
FLOORS = (
    "settings", "data", "evaluation", "training", "nets", "refiner", "temporal", "report", "pipeline", "cli",
)  # fmt: skip
GROUND = {"vos_pipeline.errors", "vos_pipeline.files", "vos_pipeline.output_folder"}


def test_every_room_of_the_pipeline_has_its_floor_and_says_what_it_is():
    rooms = {path.parent.name: path for path in PIPELINE if path.name == "__init__.py"}
    assert set(rooms) == {"vos_pipeline", *FLOORS}
    for room in FLOORS:
        text = ast.get_docstring(ast.parse(rooms[room].read_text()))
        assert text.endswith(".") and "\n" not in text, f"{room}: one sentence"


@pytest.mark.parametrize("path", PIPELINE, ids=name_of)
def test_rooms_of_the_pipeline_import_downwards_what_is_exported(path):
    room = path.relative_to(ROOT / "vos_pipeline").parent.name
    below = FLOORS[: FLOORS.index(room)] if room else FLOORS
    for module, name, _ in imports(path):
        if module == "vos_pipeline" and name in FLOORS:
            module, name = f"vos_pipeline.{name}", None
        if not module.startswith("vos_pipeline.") or module in GROUND or module.split(".")[1] == room:
            continue
        assert module in {f"vos_pipeline.{other}" for other in below}, f"{module} is no room below {room}"
        assert name is None or name in importlib.import_module(module).__all__, f"{module} exports no {name}"


def test_rooms_that_need_no_torch():
    rooms = ("settings", "data", "evaluation", "temporal", "report")
    imported = "; ".join(f"import vos_pipeline.{room}" for room in rooms)
    code = f"import sys; {imported}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# What a package of the benchmarks may import of the tree, beside itself. Tests and documents import them, not the
# other way round.
ROOMS = {
    "benchmarks": {"spn"},
    "benchmarks.operator": {"spn", "benchmarks"},
    "benchmarks.refiner": {"spn", "benchmarks", "vos_pipeline"},
    "benchmarks.pipeline": {"benchmarks", "vos_pipeline"},
    "benchmarks.cuda": {"spn", "benchmarks", "benchmarks.operator"},
    "docs.figures": {"spn", "benchmarks", "benchmarks.operator", "vos_pipeline"},
}


def package_of(name):
    """The room that a dotted name is in, else the package of the tree; None outside the tree."""
    parts = name.split(".")
    starts = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    package = starts[-1] if (ROOT / starts[-1] / "__init__.py").exists() else None
    return next((start for start in starts if start in ROOMS), package)


def packages_imported(path):
    """Every package of the tree that the file imports from, relative imports too."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) + 1 - node.level] if node.level else ()
            module = [*parent, *filter(None, [node.module])]
            names = [".".join([*module, alias.name]) for alias in node.names]
        yield from filter(None, map(package_of, names))


def test_every_room_is_listed():
    rooms = {path.parent.relative_to(ROOT) for path in (ROOT / "benchmarks").rglob("__init__.py")}
    assert {".".join(room.parts) for room in rooms} == {room for room in ROOMS if room != "docs.figures"}


@pytest.mark.parametrize(
    ("room", "path"),
    [(room, path) for room in ROOMS for path in sorted(ROOT.joinpath(*room.split(".")).glob("*.py"))],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_benchmarks_import_one_way(room, path):
    assert set(packages_imported(path)) <= ROOMS[room] | {room}


def code_of(path):
    """The file without its docstrings, comments and texts."""
    return ast.unparse(Untold().visit(ast.parse(path.read_text())))


class Untold(ast.NodeTransformer):
    def visit_Constant(self, node):
        return ast.Constant("") if isinstance(node.value, str) else node
