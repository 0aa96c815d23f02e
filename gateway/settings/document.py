"""Reads the configuration file: YAML, with every fault of form at its line.

Nothing that may be a secret is repeated from it. Needs no pydantic.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gateway.settings.values import printable

KeyPath = tuple[str, ...]

_TEXT = "tag:yaml.org,2002:str"
_BOOL = "tag:yaml.org,2002:bool"
_ON = "on"
"""A key of ours that YAML 1.1 takes for `true`; in YAML 1.2 it is text."""
_MERGE = "tag:yaml.org,2002:merge"
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds; without data when it has a problem that leaves none."""

    data: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    """Where each key is, from 1."""


def read_document(file: Path) -> Document:
    """Return the content of `file`. Never raises; faults are in `problems`.

    Names of files in it (`*_file`) are relative to its folder.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return Document(problems=(f"{file}: no such file; correct the path or mount it",))
    except OSError as error:
        reason = "a folder" if isinstance(error, IsADirectoryError) else "cannot be read"
        return Document(problems=(f"{file}: {reason}; name a readable YAML file",))
    except UnicodeDecodeError as error:
        return Document(problems=(f"{file}: byte {error.start} is not UTF-8; save it as UTF-8",))
    return _parse(file, text)


def _parse(file: Path, text: str) -> Document:
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return Document(problems=(f"{file}: empty; at least services.<name>.url is required",))
        if not isinstance(root, yaml.MappingNode):
            return Document(problems=(f"{file}: not a mapping; write `key: value` lines",))
        lines: dict[KeyPath, int] = {}
        faults = [f"{file}: {fault}" for fault in _inspect(root, (), lines, {id(root)})]
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return Document(problems=(f"{file}: {place}{_without_content(error.problem)}",))
    except yaml.reader.ReaderError as error:
        return Document(
            problems=(f"{file}: character {error.position} is not allowed in YAML; remove it",)
        )
    except ValueError:  # numbers and dates that look right to YAML and are not
        return Document(problems=(f"{file}: holds a number or date that cannot exist; quote it",))
    finally:
        if loader is not None:
            loader.dispose()
    _resolve_files(data, file.parent)
    return Document(data, tuple(faults), lines)


def _inspect(
    node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], above: set[int]
) -> Iterator[str]:
    """Yield what YAML lets pass and we do not, and take it out of `node`.

    Args:
        node: where to look; lists and mappings only have something to find.
        path: the keys that lead to `node`.
        lines: gets the line of each key below `node`.
        above: ids of `node` and the nodes that hold it: an alias to one of them has no end.
    """
    if isinstance(node, yaml.SequenceNode):
        for item in list(node.value):
            if id(item) in above:
                yield f"{_place(item)}: a value that contains itself; remove the alias"
                node.value.remove(item)
            else:
                yield from _inspect(item, path, lines, above | {id(item)})
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for pair in list(node.value):
        key, value = pair
        if id(value) in above:
            yield f"{_place(key)}: a value that contains itself; remove the alias"
            node.value.remove(pair)
        elif key.tag == _MERGE:
            yield from _inspect(value, path, lines, above | {id(value)})
        elif not _is_text(key):
            yield f"{_place(key)}: a key that is not text; put it in quotes"
            node.value.remove(pair)
        else:
            below, line = (*path, key.value), key.start_mark.line + 1
            if key.value in first:
                yield (
                    f"{_place(key)}: {printable('.'.join(below))} is given twice, first in line "
                    f"{first[key.value]}; keep one of them"
                )
            first.setdefault(key.value, line)
            lines[below] = line
            yield from _inspect(value, below, lines, above | {id(value)})


def _is_text(key: yaml.Node) -> bool:
    """Return whether a key is text; `on`, as it stands there, is made so."""
    if key.tag == _BOOL and key.value == _ON:
        key.tag = _TEXT
    return key.tag == _TEXT


def _place(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"


def _without_content(problem: str | None) -> str:
    """Return YAML's complaint without text from the file, which may be half a password."""
    plain = _QUOTED.sub(
        lambda found: found[0] if len(found[0]) == 3 or found[0].startswith("'<") else "…",
        problem or "not valid YAML",
    )
    return f"{plain}; check the indentation, and quote texts that hold ': ' or begin with * & ! % @"


def _resolve_files(data: Any, folder: Path) -> None:
    if not isinstance(data, dict):
        return
    for key, value in data.items():
        if isinstance(value, str) and key.endswith("_file") and value.strip():
            data[key] = str(folder / value)
        _resolve_files(value, folder)
