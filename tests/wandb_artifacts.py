"""GraphQL operations of the W&B stand-in (tests/wandb_graphql.py) for artifacts, reports (views) and projects."""

import json
from collections.abc import Callable
from typing import Any

from tests.wandb_state import ENTITY, NEVER, Artifact, RequestError, State, page_info, project_tree, viewer


def _artifact_type(state: State, variables: dict[str, Any]) -> Any:
    artifact = _latest(state, variables["entity"], variables["project"], variables["name"])
    tree = project_tree(variables["entity"], variables["project"])
    return {"project": tree | {"artifact": {"artifactType": {"name": artifact.type}} if artifact else None}}


def _latest(state: State, entity: str, project: str, name: str) -> Artifact | None:
    versions = [a for a in state.project(entity, project).artifacts if a.name == name.removesuffix(":latest")]
    return versions[-1] if versions else None


_ARTIFACT_FIELDS = (
    "aliases artifactCollectionName artifactCollectionNames artifactTypeName clientID clientMutationId description "
    "digest digestAlgorithm distributedID enableDigestDeduplication entityName historyStep labels metadata projectName "
    "runName sequenceClientID storageRegion ttlDurationSeconds"
)


def _create_artifact(state: State, variables: dict[str, Any]) -> Any:
    given = variables["input"]
    if extra := set(given) - set(_ARTIFACT_FIELDS.split()):
        state.unknown.append(f"createArtifact with {extra}")
    project, name = state.project(given["entityName"], given["projectName"]), given["artifactCollectionName"]
    latest = _latest(state, given["entityName"], given["projectName"], name)
    if latest is not None and latest.state == "COMMITTED" and latest.digest == given["digest"]:
        artifact = latest  # enableDigestDeduplication
    else:
        version = sum(existing.name == name for existing in project.artifacts)
        identity = f"artifact{len(state.manifests)}"
        artifact = Artifact(
            identity, given["runName"], name, given["artifactTypeName"], version, given["clientID"], given["digest"]
        )
        project.artifacts.append(artifact)
        state.manifests[identity] = artifact
    sequence = {"latestArtifact": {"id": latest.id} if latest else None}
    tree = {"id": artifact.id, "state": artifact.state, "artifactSequence": sequence}
    return {"createArtifact": {"artifact": tree}}


def _create_manifest(state: State, variables: dict[str, Any]) -> Any:
    artifact = state.manifests[variables["artifactID"]]
    url = f"{state.url}/storage/artifact/{artifact.id}/{variables['name']}"
    tree = {"id": artifact.id, "file": {"id": "f", "uploadUrl": url, "uploadHeaders": []}}
    return {"createArtifactManifest": {"artifactManifest": tree}}


def _create_artifact_files(state: State, variables: dict[str, Any]) -> Any:
    edges = []
    for file in variables["input"]["artifactFiles"]:
        artifact = state.manifests[file["artifactID"]]
        node = {
            "id": file["name"],
            "name": file["name"],
            "displayName": file["name"],
            "storagePath": file["name"],
            "uploadUrl": f"{state.url}/storage/artifact/{artifact.id}/{file['name']}",
            "uploadHeaders": [],
            "uploadMultipartUrls": None,
            "artifact": {"id": artifact.id},
        }
        edges.append({"node": node})
    return {"createArtifactFiles": {"files": {"edges": edges}}}


def _commit(state: State, variables: dict[str, Any]) -> Any:
    artifact = state.manifests[variables["artifactID"]]
    manifest = json.loads(artifact.files["wandb_manifest.json"])
    if missing := set(manifest["contents"]) - set(artifact.files):
        raise RequestError(400, f"{artifact.name} is committed without {sorted(missing)}")
    artifact.state = "COMMITTED"
    return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": artifact.digest}}}


def _membership(state: State, variables: dict[str, Any]) -> Any:
    project = project_tree(variables["entity"], variables["project"])
    artifact = _latest(state, variables["entity"], variables["project"], variables["name"])
    if artifact is None:
        return {"project": project | {"artifactCollectionMembership": None}}
    collection = {"__typename": "ArtifactSequence", "name": artifact.name, "project": project}
    tree = {
        "__typename": "Artifact",
        "id": artifact.id,
        "artifactSequence": collection,
        "versionIndex": artifact.version,
        "artifactType": {"name": artifact.type},
        "state": artifact.state,
        "digest": artifact.digest,
        "size": sum(map(len, artifact.files.values())),
        "fileCount": len(artifact.files),
        "createdAt": NEVER,
        "updatedAt": NEVER,
        "tags": [],
        "ttlIsInherited": False,
    }
    tree |= dict.fromkeys(["description", "metadata", "historyStep", "commitHash"])
    tree |= {"digestAlgorithm": "MANIFEST_MD5", "ttlDurationSeconds": -2, "aliases": []}
    membership = {
        "__typename": "ArtifactCollectionMembership",
        "id": "m",
        "versionIndex": artifact.version,
        "createdAt": NEVER,
        "ttlDurationSeconds": -2,
        "aliases": [],
    }
    membership |= {"artifactCollection": collection, "artifact": tree}
    return {"project": project | {"artifactCollectionMembership": membership}}


def _list_projects(state: State, variables: dict[str, Any]) -> Any:
    names = [name for entity, name in state.projects if entity == variables["entity"]]
    rest = {"createdAt": NEVER, "isBenchmark": False} | {"user": viewer()["viewer"]}
    nodes = [{"node": project_tree(variables["entity"], name) | rest} for name in names]
    return {"models": {"edges": nodes} | page_info(len(names), len(names))}


def _upsert_view(state: State, variables: dict[str, Any]) -> Any:
    given = dict(variables)
    identity = given.pop("id") or f"Vmlldzox{len(state.views)}"
    if variables["id"] and identity not in state.views:
        raise RequestError(404, f"view {identity} not found")
    is_new = identity not in state.views
    state.views[identity] = given
    return {"upsertView": {"view": _view_tree(identity, given), "inserted": is_new}}


def _view_tree(identity: str, view: dict[str, Any]) -> dict[str, Any]:
    tree = {key: view[key] for key in ("name", "displayName", "description", "type", "spec")}
    project = project_tree(view["entityName"], view["projectName"])
    user = {"username": ENTITY, "photoUrl": "", "email": ""}
    return tree | {"id": identity, "project": project, "createdAt": NEVER, "updatedAt": NEVER, "user": user}


def _project_views(state: State, variables: dict[str, Any]) -> Any:
    project = variables["entity"], variables["project"]
    views = [(i, v) for i, v in state.views.items() if (v["entityName"], v["projectName"]) == project]
    edges = [{"node": _view_tree(i, view), "cursor": i} for i, view in views]
    return {"project": project_tree(*project) | {"allViews": {"edges": edges} | page_info(len(views), len(views))}}


OPERATIONS: dict[str, tuple[Callable[[State, dict[str, Any]], Any], str]] = {
    "ArtifactType": (_artifact_type, "entity project name"),
    "CreateArtifact": (_create_artifact, "input"),
    "CreateArtifactManifest": (
        _create_manifest,
        "artifactID baseArtifactID name digest entityName projectName runName manifestType includeUpload",
    ),
    "CreateArtifactFiles": (_create_artifact_files, "input"),
    "CommitArtifact": (_commit, "artifactID"),
    "ArtifactMembershipByName": (_membership, "entity project name includeAliases"),
    "GetProjects": (_list_projects, "entity cursor perPage"),
    "upsertView": (_upsert_view, "id entityName projectName type name displayName description spec"),
    "ProjectViews": (_project_views, "entity project reportCursor reportLimit viewType viewName"),
}
