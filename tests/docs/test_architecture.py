"""docs/architecture.md matches the tree: files, functions, and the imports that each package may make."""

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
def test_named_files_exist(name):
    assert (ROOT / name).exists(), (
        f"docs/architecture.md names {name}, which does not exist: remove or rename it there"
    )


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_file_is_named(name):
    first = next((line for line in (ROOT / name).read_text().splitlines() if len(line.split()) > 3), "")
    assert name in NAMED, (
        f"docs/architecture.md does not name {name}: add a row  | `{name}` | its purpose |  "
        f"(the file starts with {first.strip()!r})"
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


# ---- Allowed imports -------------------------------------------------------------------------------------


def imports(path):
    """Yield (module, imported name or None, whether at module level) for every absolute import."""
    tree = ast.parse(path.read_text())
    at_once = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None, id(node) in at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.module, alias.name, id(node) in at_once) for alias in node.names)


@pytest.mark.parametrize("path", sorted((ROOT / "spn").glob("*.py")), ids=lambda path: path.name)
def test_spn_needs_only_torch(path):
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
    assert {module for module, _ in used} <= {"spn"}, "import names from spn, not from its modules"
    names = {name for _, name in used if name} | set(re.findall(r"\bspn\.(\w+)", code_of(path)))
    assert names <= set(spn.__all__)


# The subpackages of the pipeline, lowest first. A subpackage imports only exported names of those before it.
FLOORS = (
    "settings", "data", "evaluation", "training", "nets", "refiner", "temporal", "report", "pipeline", "cli",
)  # fmt: skip
GROUND = {"vos_pipeline.errors", "vos_pipeline.files", "vos_pipeline.output_folder"}


def test_every_subpackage_of_the_pipeline_is_listed_and_has_a_docstring():
    rooms = {path.parent.name: path for path in PIPELINE if path.name == "__init__.py"}
    assert set(rooms) == {"vos_pipeline", *FLOORS}
    for room in FLOORS:
        text = ast.get_docstring(ast.parse(rooms[room].read_text()))
        assert text.endswith(".") and "\n" not in text, f"{room}: the docstring must be one sentence"


@pytest.mark.parametrize("path", PIPELINE, ids=name_of)
def test_subpackages_import_only_exported_names_of_lower_ones(path):
    room = path.relative_to(ROOT / "vos_pipeline").parent.name
    below = FLOORS[: FLOORS.index(room)] if room else FLOORS
    for module, name, _ in imports(path):
        if module == "vos_pipeline" and name in FLOORS:
            module, name = f"vos_pipeline.{name}", None
        if not module.startswith("vos_pipeline.") or module in GROUND or module.split(".")[1] == room:
            continue
        assert module in {f"vos_pipeline.{other}" for other in below}, f"{room} may not import from {module}"
        assert name is None or name in importlib.import_module(module).__all__, f"{module} exports no {name}"


def test_some_subpackages_do_not_import_torch():
    rooms = ("settings", "data", "evaluation", "temporal", "report")
    imported = "; ".join(f"import vos_pipeline.{room}" for room in rooms)
    code = f"import sys; {imported}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# The packages that each package of the benchmarks may import, besides itself. Tests and documentation import the
# benchmarks, never the other way round.
ROOMS = {
    "benchmarks": {"spn"},
    "benchmarks.operator": {"spn", "benchmarks"},
    "benchmarks.refiner": {"spn", "benchmarks", "vos_pipeline"},
    "benchmarks.pipeline": {"benchmarks", "vos_pipeline"},
    "benchmarks.cuda": {"spn", "benchmarks", "benchmarks.operator"},
    "docs.figures": {"spn", "benchmarks", "benchmarks.operator", "vos_pipeline"},
}


def package_of(name):
    """Return the entry of ROOMS that contains a dotted name, else its package; None outside the tree."""
    parts = name.split(".")
    starts = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    package = starts[-1] if (ROOT / starts[-1] / "__init__.py").exists() else None
    return next((start for start in starts if start in ROOMS), package)


def packages_imported(path):
    """Yield every package of the tree that the file imports from, including relative imports."""
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


def test_every_package_of_the_benchmarks_is_listed():
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
    """Return the code of the file without docstrings, comments and string constants."""
    return ast.unparse(Untold().visit(ast.parse(path.read_text())))


class Untold(ast.NodeTransformer):
    def visit_Constant(self, node):
        return ast.Constant("") if isinstance(node.value, str) else node
