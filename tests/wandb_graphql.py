"""GraphQL operations of the W&B stand-in (tests/wandb_server.py), by name, with the variables of each.

An operation returns a complete tree, from which the query's fields are selected.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

from tests import wandb_artifacts
from tests.graphql_select import operation, select
from tests.wandb_state import ENTITY, NEVER, RequestError, Run, State, page_info, project_tree, viewer


def answer(state: State, request: dict[str, Any]) -> dict[str, Any]:
    """Answer a GraphQL request. Raises RequestError."""
    name, variables = operation(request["query"]), request.get("variables") or {}
    if name not in _OPERATIONS:
        state.unknown.append(f"operation {name}: {request['query']} with {variables}")
        raise RequestError(400, f"unknown operation {name}")
    resolve, allowed = _OPERATIONS[name]
    if extra := set(variables) - set(allowed.split()):
        state.unknown.append(f"operation {name} with variables {sorted(extra)}")
        raise RequestError(400, f"unknown variables {sorted(extra)}")
    return {"data": select(request["query"], resolve(state, variables), state.unknown)}


def _run_tree(run: Run) -> dict[str, Any]:
    tail = [json.dumps(row) for row in run.rows[-1:]]
    keys = {k: {"typeCounts": []} for row in run.rows for k in row}
    last = max((row["_step"] for row in run.rows), default=-1)
    return {
        "id": run.storage,
        "projectId": "1",
        "name": run.id,
        "displayName": run.fields.get("displayName"),
        "group": run.fields.get("groupName"),
        "jobType": run.fields.get("jobType"),
        "sweepName": None,
        "state": run.state,
        "tags": [],
        "notes": None,
        "description": None,
        "commit": None,
        "readOnly": False,
        "createdAt": NEVER,
        "heartbeatAt": NEVER,
        "user": {"name": ENTITY, "username": ENTITY},
        "systemMetrics": "{}",
        "config": json.dumps(run.config),
        "wandbConfig": json.dumps(run.config.get("_wandb", {}).get("value", {})),
        "summaryMetrics": json.dumps(run.summary),
        "historyKeys": {"keys": keys, "lastStep": last},
        "historyLineCount": len(run.rows),
        "logLineCount": 0,
        "eventsLineCount": 0,
        "historyTail": json.dumps(tail),
        "eventsTail": "[]",
        "history": [json.dumps(row) for row in run.rows],
        "fileCount": len(run.files),
    }


def _resume_status(state: State, variables: dict[str, Any]) -> Any:
    entity, project = variables["entity"] or ENTITY, variables["project"]
    run = state.project(entity, project).runs.get(variables["name"])
    return {"model": project_tree(entity, project) | {"bucket": _run_tree(run) if run else None}}


def _upsert(state: State, variables: dict[str, Any]) -> Any:
    if set(variables) == {"id", "summaryMetrics"}:
        return _set_summary(state, variables)
    entity, name = variables["entity"] or ENTITY, variables["project"]
    if entity not in (ENTITY, "team"):
        raise RequestError(404, f"entity {entity} not found")
    project = state.project(entity, name)
    if variables["name"] in project.deleted:
        raise RequestError(409, f"run {variables['name']} was previously created and deleted; try a new run name")
    is_new = variables["name"] not in project.runs
    run = project.runs.setdefault(variables["name"], Run(variables["name"], f"{entity}/{name}/{variables['name']}"))
    run.fields |= {k: v for k, v in variables.items() if v is not None and k in ("displayName", "groupName", "jobType")}
    if variables["config"] is not None:
        run.config = json.loads(variables["config"])
    if is_new:
        run.state = "running"
    bucket = _run_tree(run) | {"project": project_tree(entity, name)}
    return {"upsertBucket": {"bucket": bucket, "inserted": is_new}}


def _set_summary(state: State, variables: dict[str, Any]) -> Any:
    (run,) = [r for project in state.projects.values() for r in project.runs.values() if r.storage == variables["id"]]
    run.summary = json.loads(variables["summaryMetrics"])
    return {"upsertBucket": {"bucket": _run_tree(run), "inserted": False}}


def _run_files_url(state: State, variables: dict[str, Any], name: str) -> str:
    return f"{state.url}/storage/run/{variables['entity']}/{variables['project']}/{variables['run']}/{name}"


def _create_files(state: State, variables: dict[str, Any]) -> Any:
    files = [{"name": name, "uploadUrl": _run_files_url(state, variables, name)} for name in variables["files"]]
    return {"createRunFiles": {"runID": "UnVu", "uploadHeaders": [], "files": files}}


def _features(state: State, variables: dict[str, Any]) -> Any:
    return {"serverInfo": {"features": []}}


def _one_run(state: State, variables: dict[str, Any]) -> Any:
    stored = state.projects.get((variables["entity"], variables["project"]))
    run = stored.runs.get(variables["name"]) if stored else None
    if stored is None:
        return {"project": None}
    return {
        "project": project_tree(variables["entity"], variables["project"]) | {"run": _run_tree(run) if run else None}
    }


def _files(state: State, variables: dict[str, Any]) -> Any:
    answer = _one_run(state, variables)
    run = state.project(variables["entity"], variables["project"]).runs[variables["name"]]
    names = [name for name in sorted(run.files) if not variables["fileNames"] or name in variables["fileNames"]]
    start = int(variables.get("fileCursor") or 0)
    page = names[start : start + variables["fileLimit"]]
    edges = []
    for number, name in enumerate(page, start + 1):
        content = run.files[name]
        url = _run_files_url(state, variables | {"run": run.id}, name)
        node = {
            "id": name,
            "name": name,
            "url": url,
            "directUrl": url,
            "sizeBytes": str(len(content)),
            "mimetype": "",
            "updatedAt": NEVER,
            "md5": base64.b64encode(hashlib.md5(content).digest()).decode(),
        }
        edges.append({"node": node, "cursor": str(number)})
    answer["project"]["run"]["files"] = {"edges": edges} | page_info(start + len(page), len(names))
    return answer


def _runs(state: State, variables: dict[str, Any]) -> Any:
    """Return a page of the runs that match a filter by id or by groups."""
    stored = state.projects.get((variables["entity"], variables["project"]))
    if stored is None:
        return {"project": None}
    filters = json.loads(variables["filters"])
    if set(filters) == {"name"}:
        runs = [run for run in stored.runs.values() if run.id == filters["name"]]
    elif set(filters) == {"group"} and set(filters["group"]) == {"$in"}:
        runs = [run for run in stored.runs.values() if run.fields.get("groupName") in filters["group"]["$in"]]
    else:
        state.unknown.append(f"filters {filters}")
        runs = []
    start = int(variables.get("cursor") or 0)
    page = runs[start : start + variables["perPage"]]
    edges = [{"node": _run_tree(run), "cursor": str(number)} for number, run in enumerate(page, start + 1)]
    tree = project_tree(variables["entity"], variables["project"])
    listing = {"edges": edges} | page_info(start + len(page), len(runs))
    return {"project": tree | {"runCount": len(runs), "readOnly": False, "runs": listing}}


_OPERATIONS: dict[str, tuple[Callable[[State, dict[str, Any]], Any], str]] = {
    "Viewer": (lambda state, variables: viewer(), ""),
    "GetDefaultEntity": (lambda state, variables: viewer(), ""),
    "RunResumeStatus": (_resume_status, "project entity name"),
    "UpsertBucket": (
        _upsert,
        "id name project entity groupName description displayName notes commit config host debug program repo jobType "
        "state sweep tags summaryMetrics",
    ),
    "CreateRunFiles": (_create_files, "entity project run files"),
    "ServerFeaturesQuery": (_features, ""),
    "RunHistoryKeys": (_one_run, "entity project name"),
    "Run": (_one_run, "entity project name"),
    "RunFullHistory": (_one_run, "entity project name samples"),
    "RunFiles": (_files, "entity project name fileNames upload pattern fileLimit fileCursor"),
    "Runs": (_runs, "entity project cursor perPage order filters"),
    **wandb_artifacts.OPERATIONS,
}
