"""The state of the W&B stand-in (tests/wandb_server.py), and common parts of its answers."""

from dataclasses import dataclass, field
from typing import Any

ENTITY = "me"  # the owner of the API key, which may also write to the entity "team"
NEVER = "1970-01-01T00:00:00Z"


@dataclass
class Run:
    """A run, as uploaded."""

    id: str
    storage: str  # the server's internal id
    fields: dict[str, Any] = field(default_factory=dict)  # displayName, groupName, jobType …
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    state: str = "running"


@dataclass
class Artifact:
    """A version of an artifact."""

    id: str
    run: str
    name: str
    type: str
    version: int
    client: str
    digest: str
    state: str = "PENDING"
    files: dict[str, bytes] = field(default_factory=dict)  # by path in the manifest


@dataclass
class Project:
    """The runs and artifacts of a project."""

    runs: dict[str, Run] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)  # ids of deleted runs, which cannot be used again


class RequestError(Exception):
    """An error that the real server would return as well: status and message."""


class State:
    """The projects and reports of a server."""

    def __init__(self) -> None:
        self.projects: dict[tuple[str, str], Project] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.manifests: dict[str, Artifact] = {}  # by the artifact's id
        self.unknown: list[str] = []
        self.url = ""

    def project(self, entity: str = ENTITY, name: str = "sweeper") -> Project:
        return self.projects.setdefault((entity, name), Project())


def viewer() -> dict[str, Any]:
    teams = {"edges": [{"node": {"id": "VA", "name": name}} for name in (ENTITY, "team")]}
    return {
        "viewer": {
            "id": "VXNlcjox",
            "entity": ENTITY,
            "username": ENTITY,
            "name": ENTITY,
            "email": "me@example.org",
            "admin": False,
            "flags": "{}",
            "deletedAt": None,
            "teams": teams,
            "apiKeys": {"edges": []},
        }
    }


def project_tree(entity: str, project: str) -> dict[str, Any]:
    owner = {"id": "RW50", "name": entity}
    return {
        "__typename": "Project",
        "id": "UHJv",
        "internalId": "1",
        "name": project,
        "entity": owner,
        "entityName": entity,
    }


def page_info(end: int, total: int) -> dict[str, Any]:
    return {"pageInfo": {"__typename": "PageInfo", "endCursor": str(end), "hasNextPage": end < total}}
