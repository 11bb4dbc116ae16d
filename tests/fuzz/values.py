"""Values that break things: texts, numbers, JSON, and what can be in the place of a file."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXTS = [
    "", " ", ".", "..", "/", "~", "~nobody/x", "../../escaped", "/dev/null", "/proc/self/mem", "-", "--", "-1",
    "0", "1e999",
    "nan", "inf", "-inf", "None", "true", "[]", "{}", "a" * 300, "a" * 5000, "é", "日本", "\U0001f600", "\udcff",
    "a\nb", "a\tb", "\x1b[31m",
    "[/old]", "[bold]", "{0}", "%s", "$HOME", "a b", "a'b", 'a"b', "a,b", "a=b", "=", ",", "1,2", "d=", "d=4",
    "d=x", "best", "mnist5k",
    "mnist5k-students", "no.such", "x.py", "http://localhost:1", "\u202e", "\u2028", "\xa0", "١٢", "0x10",
    "1_000", "+3", "3.0", "1e3",
]  # fmt: skip
NUMBERS = ["-1", "0", "1", "2", "3", "2147483648", "1000000", "9" * 20, "9" * 400, "9" * 5000, "1e400", "-0"]
NUMBERS += ["nan", "inf", "x", "1.5"]
JSON: list[Any] = [
    None, True, False, 0, 1, -1, 1.5, 2, 10**15, 10**30, -(10**30), 1e308, -1e308, float("nan"), float("inf"),
    "", "x", "..", "../../escaped",
    "a/b", "a\nb", "\x1b[2J", "[/x]", "\x00", "é" * 200, "a" * 10_000, "\udcff", [], [[]], [1, 2], ["a"], {},
    {"a": 1}, {"fid": 1}, [None],
]  # fmt: skip


def damaged(text: str, rng: random.Random) -> bytes:
    """Return a JSON text with one value, key or stretch of bytes wrong."""
    value = json.loads(text)
    kind = rng.randrange(10)
    if kind < 6 and isinstance(value, dict | list) and value:
        _spoil(value, rng)
        return json.dumps(value).encode()
    content = bytearray(text.encode())
    if kind == 6:  # a stretch of random bytes
        start = rng.randrange(len(content))
        content[start : start + rng.randrange(1, 20)] = rng.randbytes(rng.randrange(20))
        return bytes(content)
    if kind == 7:
        return bytes(content[: rng.randrange(len(content))])
    if kind == 8:
        depth = rng.choice([100, 100_000])
        deep = rng.choice([b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth])
        encodings: list[bytes] = [b"", b" ", b"\x00" * 100, b"\xef\xbb\xbf" + content, text.encode("utf-16"), deep]
        return rng.choice(encodings)
    return json.dumps(rng.choice(JSON)).encode()


def _spoil(value: Any, rng: random.Random) -> None:
    """Change, remove, add or rename one thing somewhere in a value."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    inner = value[key]
    if isinstance(inner, dict | list) and inner and rng.random() < 0.7:
        _spoil(inner, rng)
        return
    kind = rng.randrange(6)
    if kind == 0:
        del value[key]
    elif kind == 1 and isinstance(value, dict):
        value[rng.choice(TEXTS)] = rng.choice(JSON)
    elif kind == 2 and isinstance(value, dict):
        value[rng.choice(TEXTS)] = value.pop(key)
    elif kind == 2:
        value.append(inner)
    else:
        value[key] = rng.choice(JSON)


def replaced(path: Path, rng: random.Random) -> Callable[[], None]:
    """Return what puts something else in the place of a file."""
    kind = rng.choice(["folder", "pipe", "loop", "dangling", "device", "huge", "unreadable", "empty"])

    def put() -> None:
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "huge":
            with open(path, "wb") as file:
                file.truncate(10**12)
        elif kind in ("empty", "unreadable"):
            path.touch()
            path.chmod(0 if kind == "unreadable" else 0o644)  # root reads it none the less
        else:
            path.symlink_to({"loop": path.name, "dangling": "/nowhere/x", "device": "/dev/zero"}[kind])

    return put
