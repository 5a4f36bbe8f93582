"""What `kubectl kustomize` would print for deploy/, of the few things that these files use: no such tool is needed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

KNOWN = {"apiVersion", "kind", "resources", "patches", "images"}
KEYS = ("mountPath", "name")
"""By which of an element's fields lists are merged, as Kubernetes has it for containers, env, volumes and mounts."""


def rendered(directory: Path) -> list[Any]:
    """All documents of a kustomization, patched."""
    (found,) = yaml.safe_load_all((directory / "kustomization.yaml").read_text(encoding="utf-8"))
    assert found["apiVersion"] == "kustomize.config.k8s.io/v1beta1"
    assert found["kind"] == "Kustomization"
    assert set(found) <= KNOWN, set(found) - KNOWN
    documents: list[Any] = []
    for name in found["resources"]:
        path = directory / name
        assert path.exists(), path
        documents += rendered(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    for patch in found.get("patches", []):
        (change,) = yaml.safe_load_all((directory / patch["path"]).read_text(encoding="utf-8"))
        wanted = (patch["target"]["kind"], patch["target"]["name"])
        places = [n for n, each in enumerate(documents) if (each["kind"], each["metadata"]["name"]) == wanted]
        assert len(places) == 1, f"{patch['path']} is for {wanted}, of which there are {len(places)}"
        assert (change["kind"], change["metadata"]["name"]) == wanted
        documents[places[0]] = merged(documents[places[0]], change)
    for image in found.get("images", []):
        _require_image(documents, image["name"])
    return documents


def merged(base: Any, change: Any) -> Any:
    """A strategic merge: maps by key, lists of named elements by name, null takes away, everything else replaces."""
    if isinstance(base, Mapping) and isinstance(change, Mapping):
        both = {name: merged(base.get(name), change[name]) if name in change else value for name, value in base.items()}
        both |= {name: merged(None, value) for name, value in change.items() if name not in base}
        return {name: value for name, value in both.items() if value is not None}
    if isinstance(base, list) and isinstance(change, list) and (key := _key_of([*base, *change])):
        named = {each[key]: each for each in base}
        return list((named | {each[key]: merged(named.get(each[key]), each) for each in change}).values())
    if isinstance(change, Mapping):
        return {name: value for name, value in change.items() if value is not None}
    return change


def _key_of(elements: list[Any]) -> str | None:
    return next((k for k in KEYS if all(isinstance(each, Mapping) and k in each for each in elements)), None)


def _require_image(documents: list[Any], name: str) -> None:
    pods = [d["spec"]["template"]["spec"] for d in documents if d["kind"] == "Deployment"]
    images = {container["image"].partition(":")[0] for pod in pods for container in pod["containers"]}
    assert name in images, f"no container has the image {name}"
