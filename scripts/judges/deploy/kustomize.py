"""As much of kustomize as `deploy/kubernetes` uses: resources, a namespace, strategic merge patches, a suffix of names, labels.

Anything else in a kustomization is an error here, so that nothing is silently left out.
"""

import yaml

KNOWN = {"apiVersion", "kind", "namespace", "nameSuffix", "labels", "resources", "patches"}
OF_CLUSTER = {"Namespace"}
# Lists that are merged by a key of their items; every other list is replaced.
MERGED_BY = {
    "containers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "topologySpreadConstraints": "topologyKey",
}


def render(folder):
    """The resources of a kustomization."""
    said = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(said) - KNOWN
    if unknown:
        raise AssertionError(f"{folder}: this loader does not know {sorted(unknown)}; use `kubectl kustomize`")
    resources = []
    for name in said["resources"]:
        path = folder / name
        found = render(path) if path.is_dir() else documents(path)
        resources.extend(found)
    for patch in said.get("patches", []):
        if set(patch) != {"path"}:
            raise AssertionError(f"{folder}: a patch other than a file: {patch}")
        for change in documents(folder / patch["path"]):
            targets = [one for one in resources if identity(one) == identity(change)]
            if len(targets) != 1:
                raise AssertionError(f"{folder}: {len(targets)} resources are {identity(change)}")
            merge(targets[0], change)
    for one in resources:
        # Nothing here refers to what has a suffix by a name that is to change with it.
        one["metadata"]["name"] += said.get("nameSuffix", "")
        for labels in said.get("labels", []):
            if set(labels) != {"pairs", "includeSelectors"}:
                raise AssertionError(f"{folder}: labels of another kind: {labels}")
            for found in labels_of(one):
                found.update(labels["pairs"])
        if "namespace" not in said:
            continue
        if one["kind"] not in OF_CLUSTER:
            one["metadata"]["namespace"] = said["namespace"]
        elif one["kind"] == "Namespace":
            one["metadata"]["name"] = said["namespace"]
    twice = {identity(one) for one in resources if sum(identity(one) == identity(other) for other in resources) > 1}
    if twice:
        raise AssertionError(f"{folder}: more than once: {sorted(twice)}")
    return resources


def labels_of(resource):
    """The labels of a resource, and the selectors that are to know them."""
    kind, spec = resource["kind"], resource["spec"]
    yield resource["metadata"].setdefault("labels", {})
    if kind == "Service":
        yield spec["selector"]
    elif kind in ("Deployment", "PodDisruptionBudget"):
        yield spec["selector"]["matchLabels"]
    else:
        raise AssertionError(f"this loader does not know where labels are in a {kind}")
    if kind == "Deployment":
        yield spec["template"]["metadata"]["labels"]
        for spread in spec["template"]["spec"].get("topologySpreadConstraints", []):
            yield spread["labelSelector"]["matchLabels"]


def documents(path):
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def identity(resource):
    return resource["apiVersion"], resource["kind"], resource["metadata"]["name"]


def merge(into, change):
    for key, value in change.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        elif isinstance(value, list) and key in MERGED_BY and key in into:
            merge_lists(into[key], value, MERGED_BY[key])
        else:
            into[key] = value


def merge_lists(into, changes, by):
    there = {one[by]: one for one in into}
    for change in changes:
        if change[by] in there:
            merge(there[change[by]], change)
    into[:0] = [change for change in changes if change[by] not in there]
