"""Imports run downward, and no file is too long to be read at once."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the bottom to the top: a file imports its own layer and those before it.
LAYERS = (
    ("trainables",),
    ("sweeper.spaces", "sweeper.records", "sweeper.added", "sweeper.store", "sweeper.weights"),
    ("sweeper.scheduling",),
    ("sweeper.execution", "sweeper.request"),
    ("sweeper.forecast", "sweeper.results"),
    ("sweeper.terminal", "sweeper.tracking", "sweeper.score", "sweeper.transfer", "sweeper.doctor", "sweeper.clean"),
    ("sweeper.session",),
    ("sweeper.run", "sweeper.pinned"),
    ("sweeper.adding",),
    ("sweeper.choices", "sweeper.typed_command", "sweeper.options", "sweeper.budget_options", "sweeper.panels"),
    ("sweeper.store_cli", "sweeper.teacher_cli", "sweeper.wandb_cli"),
    ("sweeper.cli",),
    ("sweeper.__main__",),
)
FREE = {"sweeper", "search_spaces"}  # `import sweeper` is the door to the notebook; a space imports Space alone
FILES = [p for package in ("sweeper", "trainables", "search_spaces") for p in sorted((ROOT / package).rglob("*.py"))]
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in FILES}


def imports(path: Path) -> Iterator[str]:
    """Modules of the project that a file imports, also inside functions and for type checkers."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in ("sweeper", "trainables", "search_spaces"))


def layer(module: str) -> int:
    return next(n for n, names in enumerate(LAYERS) if any(f"{module}.".startswith(f"{name}.") for name in names))


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] not in FREE or "." in name])
def test_imports_run_downward(module: str) -> None:
    if module.startswith("search_spaces"):
        assert set(imports(MODULES[module])) <= {"sweeper.spaces"}
        return
    for imported in imports(MODULES[module]):
        if imported not in FREE:
            assert layer(imported) <= layer(module), f"{module} imports {imported}"


def test_no_import_is_circular() -> None:
    graph = {name: {i for i in imports(path) if i in MODULES and i not in FREE} for name, path in MODULES.items()}
    while free := {name for name, needs in graph.items() if not needs}:
        graph = {name: needs - free for name, needs in graph.items() if name not in free}
    assert not graph


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_fits_in_the_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 350


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_a_benchmark_imports_what_there_is(path: Path) -> None:
    """They run for hours, and mostly not in the tests."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in ("sweeper", "trainables"):
            module = ast.parse(MODULES[str(node.module)].read_text())
            names = {name for statement in module.body for name in defined(statement)}
            for alias in node.names:
                assert alias.name in names or f"{node.module}.{alias.name}" in MODULES, f"{node.module}: {alias.name}"


def defined(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement of a module defines or imports."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in statement.names)
    else:
        yield from (n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


@pytest.mark.parametrize("package", sorted({p.parent for p in FILES}), ids=lambda path: path.name)
def test_a_package_says_in_one_sentence_what_it_answers(package: Path) -> None:
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text()))
    assert text is not None
    assert len(text) < 130
