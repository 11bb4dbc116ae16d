"""A parser of GraphQL requests: the operation's name, and the fields that it selects."""

import re
from typing import Any


def operation(query: str) -> str:
    """Return the name of the operation, or the beginning of an unnamed query."""
    match = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
    return match[1] if match else query.strip()[:60]


def select(query: str, tree: Any, unknown: list[str]) -> Any:
    """Return the fields of a tree that a query selects. Append missing fields to `unknown`, and return them as None."""
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
        selected: list[Any] = []
        position += 1
        while words[position] != "}":
            if words[position] == "...":
                if words[position + 1] == "on":
                    position += 3
                    selected.append((None, None, fields()))
                else:
                    selected.append((None, words[position + 1], []))
                    position += 2
                continue
            alias = name = words[position]
            position += 1
            if words[position] == ":":
                name, position = words[position + 1], position + 2
            if words[position] == "(":
                arguments()
            if words[position].startswith("@"):  # @include(if: …): always included
                position += 1
                arguments()
            selected.append((alias, name, fields() if words[position] == "{" else []))
        position += 1
        return selected

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

    def pick(selected: list[Any], value: Any) -> Any:
        if not selected or value is None:
            return value
        if isinstance(value, list):
            return [pick(selected, item) for item in value]
        picked: dict[str, Any] = {}
        for alias, name, inner in selected:
            if alias is None:
                picked |= pick(fragments[name] if name else inner, value)
            elif name in value:
                picked[alias] = pick(inner, value[name])
            else:
                unknown.append(f"field {name} of {sorted(value)}")
                picked[alias] = None
        return picked

    return pick(roots, tree)
