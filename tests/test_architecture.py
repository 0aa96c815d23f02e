"""The rooms drawn in gateway/README.md, as assertions."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.rows import every_row

PACKAGE = Path(__file__).parent.parent / "gateway"

# Rank = row of the picture; a room may import from strictly lower rows and from itself.
RANK = {
    "errors": 0,
    "build": 0,
    "clock": 0,
    "settings": 1,
    "http": 2,
    "identity": 3,
    "observe": 3,
    "upstream": 4,
    "admin": 4,
    "proxy": 5,
    "downstream": 6,
    "tokens": 6,
    "lifecycle": 7,
    "assembly": 8,
    "diagnose": 9,
    "cli": 10,
}
TWIN = "twin"
PURE = ("http", "errors")
IMPURE = {"asyncio", "aiohttp", "socket", "ssl", "time", "logging", "os", "random", "threading"}
VALUES = {"settings"}  # reads files and the environment while loading; nothing else
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "manager", "base"}
MOST_METHODS = 20
MOST_ATTRIBUTES = 14
FEW_METHODS = 6  # a class with no more of them may hold as much as it likes: it decides little
MOST_LINES = 400
SHORT_ROOMS = {
    "tokens",
    "http",
    "proxy",
    "upstream",
    "downstream",
    "admin",
    "lifecycle",
    "assembly",
    "diagnose",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """Name the room that a module stands in; a module at the top is a room of its own."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Return every node of a module's syntax, from outside to inside."""
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imports_of(path: Path) -> set[str]:
    """Return every module that `path` imports, lazily or for types included."""
    found: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def rooms_imported_by(path: Path) -> set[str]:
    """Return the rooms of ours that a module imports from; the package itself is none."""
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("gateway.")}


def name_of(path: Path) -> str:
    """Return the name that a module is imported by."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_imported_by(path: Path) -> set[str]:
    """Return the modules of ours that a module names; `from a import b` may name a.b."""
    ours = {name_of(module) for module in MODULES}
    found = imports_of(path)
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner
            if inner <= ours:
                found.discard(str(node.module))  # the package holds them, and nothing of it is used
    return found & ours


def classes() -> Iterator[tuple[str, list[ast.FunctionDef | ast.AsyncFunctionDef]]]:
    """Yield each class, nested ones too, by module and name, and its methods."""
    for path in MODULES:
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef):
                methods = [
                    inner
                    for inner in node.body
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
                ]
                yield f"{path.relative_to(PACKAGE)}: {node.name}", methods


def attributes_assigned_by(method: ast.AST) -> set[str]:
    """Return the names that a method assigns on self."""
    return {
        node.attr
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def test_imports_point_down_only() -> None:
    """
    No arrow goes up, and none goes sideways into another room of the same row.
    """
    with every_row() as trying:
        for path in MODULES:
            with trying(path.relative_to(PACKAGE)):
                assert_points_down(path)


def assert_points_down(path: Path) -> None:
    """Hold the imports of one module against the picture."""
    room = room_of(path)
    if room in {"__init__", "__main__"}:
        return
    for other in rooms_imported_by(path):
        if TWIN in {room, other}:
            assert room in {other, "cli"}, "twin stands alone"
        else:
            assert other == room or RANK[other] < RANK[room], f"imports {other}"


def test_every_room_is_on_the_picture() -> None:
    """
    A new room has to be drawn before it can be used, in the README as well.
    """
    rooms = {room_of(path) for path in MODULES} - {"__init__", "__main__"}

    assert rooms == {*RANK, TWIN}
    picture = (PACKAGE / "README.md").read_text().split("```")[1]
    assert all(re.search(rf"^(.*\s)?{room}\b", picture, re.MULTILINE) for room in rooms)


@pytest.mark.parametrize("room", PURE)
def test_decisions_do_no_io(room: str) -> None:
    """
    Pure rooms import nothing that can wait, read a clock, or write.
    """
    for path in MODULES:
        if room_of(path) == room:
            roots = {name.partition(".")[0] for name in imports_of(path)}
            assert not roots & IMPURE, f"{path}: {roots & IMPURE}"


def test_names_explain_themselves() -> None:
    """
    No module is a drawer for odds and ends.
    """
    assert not FORBIDDEN_NAMES & {path.stem for path in MODULES}


def test_every_module_says_what_it_owns() -> None:
    """
    A module begins with a docstring, except the two that only start or hold others.
    """
    for path in MODULES:
        if path.stem not in {"__init__", "__main__"}:
            assert ast.get_docstring(ast.parse(path.read_text())), path


def test_the_framework_lives_in_its_rooms() -> None:
    """
    aiohttp's server is known to downstream/, admin/ and twin/, its client to identity/ alone.
    """
    allowed = {"downstream", "admin", "lifecycle", "identity", "observe", "cli", TWIN}
    for path in MODULES:
        if any(name.partition(".")[0] == "aiohttp" for name in imports_of(path)):
            assert room_of(path) in allowed, path


def test_only_what_is_installed_with_the_gateway_is_imported() -> None:
    """
    No test-only library, as llhttp is: everything is a requirement, or comes with the named one.
    """
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["demo"], *extras["otel"], *extras["fleet"]]
    installed = {Requirement(line).name.lower().replace("-", "_") for line in wanted}
    installed |= {
        "yaml",
        "pydantic_core",
        "yarl",
        "opentelemetry",
        "PIL",
    }  # PyYAML, pydantic, aiohttp, otel, Pillow
    known = installed | sys.stdlib_module_names | {"gateway"}
    for path in MODULES:
        assert {name.partition(".")[0] for name in imports_of(path)} <= known, path


def test_time_is_read_in_one_place() -> None:
    """
    Code that needs the time gets a clock passed in; a command that blocks may sleep, and the twin
    has a clock of its own.
    """
    allowed = {PACKAGE / "clock.py", PACKAGE / "cli" / "wait.py", PACKAGE / "observe/access_log.py"}
    for path in MODULES:
        if "time" in imports_of(path) and room_of(path) != TWIN:
            assert path in allowed, path


def test_no_modules_import_each_other() -> None:
    """
    Imports make no cycle, lazy ones and those for types alone included.
    """
    graph = {name_of(path): modules_imported_by(path) for path in MODULES}

    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_no_class_does_too_much() -> None:
    """
    A class with more than 20 methods is several classes.
    """
    counts = {name: len(methods) for name, methods in classes()}

    assert {name: count for name, count in counts.items() if count > MOST_METHODS} == {}


def test_no_class_knows_too_much() -> None:
    """
    A class that does something has no more than 14 attributes.
    """
    counts = {
        name: len(set().union(*map(attributes_assigned_by, methods)))
        for name, methods in classes()
        if len(methods) > FEW_METHODS
    }

    assert {name: count for name, count in counts.items() if count > MOST_ATTRIBUTES} == {}


def test_no_module_is_too_long() -> None:
    """
    A module of the request's path, or of what builds and runs it, has no more than 400 lines.
    """
    counts = {
        str(path.relative_to(PACKAGE)): len(path.read_text().splitlines())
        for path in MODULES
        if room_of(path) in SHORT_ROOMS
    }

    assert {name: count for name, count in counts.items() if count > MOST_LINES} == {}


def test_compiled_classes_are_inherited_only_where_that_works() -> None:
    """Else the compiled build fails when the class is made, long after the interpreted one passed.

    A class outside the compiled files may inherit from one inside only if that one allows it.
    """
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    hook = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
    compiled = {path for pattern in hook["include"] for path in PACKAGE.parent.glob(pattern)}
    assert compiled
    classes = {
        path: [node for node in nodes_of(path) if isinstance(node, ast.ClassDef)]
        for path in {*MODULES, *compiled}
    }
    closed = {
        node.name
        for path in compiled
        for node in classes[path]
        if not any(
            "allow_interpreted_subclasses" in ast.unparse(one) for one in node.decorator_list
        )
    }
    assert "ClientConnection" in closed

    assert [
        f"{path.relative_to(PACKAGE)}: {node.name}"
        for path in set(MODULES) - compiled
        for node in classes[path]
        if closed & {ast.unparse(base).partition("[")[0] for base in node.bases}
    ] == []
