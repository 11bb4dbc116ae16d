"""As much of GraphQL as reading a request takes: its name, and what it selects of an answer."""

import re
from typing import Any


def operation(query: str) -> str:
    found = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
    return found[1] if found else query.strip()[:60]


def select(query: str, tree: Any, unknown: list[str]) -> Any:
    """What a query selects of a tree; fields that the tree has not are written down."""
    words = re.findall(r"\.\.\.|@?[A-Za-z_]\w*|[{}():]", re.sub(r'#[^\n]*|"[^"]*"', "", query))
    fragments: dict[str, list[Any]] = {}
    roots: list[Any] = []
    position = 0

    def arguments() -> None:
        nonlocal position
        depth = 0
        while True:
            depth += {"(": 1, ")": -1}.get(words[position], 0)
            position += 1
            if depth == 0:
                return

    def fields() -> list[Any]:
        nonlocal position
        found: list[Any] = []
        position += 1
        while words[position] != "}":
            if words[position] == "...":
                if words[position + 1] == "on":
                    position += 3
                    found.append((None, None, fields()))
                else:
                    found.append((None, words[position + 1], []))
                    position += 2
                continue
            alias = name = words[position]
            position += 1
            if words[position] == ":":
                name, position = words[position + 1], position + 2
            if words[position] == "(":
                arguments()
            if words[position].startswith("@"):  # @include(if: …): it is answered anyway
                position += 1
                arguments()
            found.append((alias, name, fields() if words[position] == "{" else []))
        position += 1
        return found

    while position < len(words):
        kind = words[position]
        if kind == "fragment":
            name, position = words[position + 1], position + 4
            fragments[name] = fields()
        elif kind in ("query", "mutation"):
            position += 2
            if words[position] == "(":
                arguments()
            roots = fields()
        else:
            unknown.append(f"cannot read {query}")
            return tree

    def take(selected: list[Any], value: Any) -> Any:
        if not selected or value is None:
            return value
        if isinstance(value, list):
            return [take(selected, item) for item in value]
        taken: dict[str, Any] = {}
        for alias, name, inner in selected:
            if alias is None:
                taken |= take(fragments[name] if name else inner, value)
            elif name in value:
                taken[alias] = take(inner, value[name])
            else:
                unknown.append(f"field {name} of {sorted(value)}")
                taken[alias] = None
        return taken

    return take(roots, tree)
