"""The manifests of Kubernetes, rendered and read field by field. Part of the judge `deploy`."""

import json
import re
import subprocess
import tomllib

import kubernetes_validate
import yaml

import kustomize
from asked import SECRETS, check_settings, setting
from checks import equal, true
from image import instructions
from server import ROOT

OVERLAYS = ROOT / "deploy/kubernetes"
OPERATIONS = (ROOT / "docs/OPERATIONS.md").read_text()
KUBERNETES = "1.37"


ROLES = ("gateway", "identity", "inference", "dialogues", "jobs")


def overlays():
    return {name: kustomize.render(OVERLAYS / name) for name in ("single", "replicas", "roles", "roles-keda")}


def manifests_are_valid(overlays):
    """Every resource of Kubernetes in every overlay is valid to its own schemas, without unknown fields."""
    for resources in overlays.values():
        for one in resources:
            if one["kind"] != "ScaledObject":
                kubernetes_validate.validate(one, KUBERNETES, strict=True)


def loader_renders_what_kubectl_renders(overlays):
    """Where kubectl is at hand, it renders the same resources."""
    for name, resources in overlays.items():
        done = subprocess.run(
            ["kubectl", "kustomize", OVERLAYS / name], capture_output=True, text=True, timeout=30
        )
        equal(done.returncode, 0, done.stderr)
        theirs = by_name(yaml.safe_load_all(done.stdout))
        equal(by_name(resources), theirs, f"overlay {name}")


def pods_are_confined(overlays):
    """Pods run as nobody of weight on a read-only root, without privileges, tokens and service links."""
    for resources, pod in pods(overlays):
        context, container = pod["securityContext"], container_of(pod)
        true(context["runAsNonRoot"] is True, "runAsNonRoot")
        user = dict(instructions((ROOT / "Dockerfile").read_text())[0])["USER"].strip()
        equal(f"{context['runAsUser']}:{context['runAsGroup']}", user, "user")
        equal(context["fsGroup"], context["runAsGroup"], "fsGroup")
        equal(context["seccompProfile"], {"type": "RuntimeDefault"}, "seccompProfile")
        equal(
            container["securityContext"],
            {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "securityContext of the container",
        )
        equal(pod["enableServiceLinks"], False, "enableServiceLinks")
        equal(pod["automountServiceAccountToken"], False, "automountServiceAccountToken")
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            true(not pod.get(field), f"{field} is set")
        true("subPath" not in json.dumps(resources), "subPath: such a mount never sees a change")
        namespace = only(resources, "Namespace")
        equal(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted", "pod security")


def probes_ask_no_database(overlays):
    """Liveness asks only whether the process answers; no probe asks /health, which asks the databases."""
    for _, pod in pods(overlays):
        container = container_of(pod)
        paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
        equal(paths, {"startup": "/health/live", "liveness": "/health/live", "readiness": "/health/ready"}, "probes")


def stops_have_time(overlays):
    """A pod is out of its Service before the server closes its listener, and has time to drain."""
    for resources, pod in pods(overlays):
        container = container_of(pod)
        true("lifecycle" not in container, "the server itself waits for Services to follow")
        settings = tomllib.loads(only(resources, "ConfigMap")["data"]["auspex.toml"])
        seconds = settings["server"]["shutdown_delay_ms"] / 1000
        probe = container["readinessProbe"]
        true(seconds > probe["periodSeconds"] * probe["failureThreshold"], "shutdown_delay_ms is too short for the probe")
        drain_ms = setting("server", "drain_timeout_ms") + setting("server", "linger_timeout_ms")
        true(pod["terminationGracePeriodSeconds"] >= seconds + drain_ms / 1000 + 5, "terminationGracePeriodSeconds")


def memory_is_that_of_the_document(overlays):
    """Requests and limits are there, and the memory is what OPERATIONS.md says a server with the defaults needs."""
    documented = int(re.search(r"give the\s+process or container (\d+) MB", OPERATIONS)[1])
    for _, pod in pods(overlays):
        given = container_of(pod)["resources"]
        equal(given["limits"]["memory"], f"{documented}Mi", "memory limit")
        equal(given["requests"]["memory"], given["limits"]["memory"], "memory request")
        true({"cpu"} <= set(given["requests"]) & set(given["limits"]), "processors")


def network_is_closed_but_for_what_is_needed(overlays):
    """Pods reach DNS, and replicas the database and Redis; they are reached at their port alone."""
    for name, resources in overlays.items():
        policies = [one["spec"] for one in resources if one["kind"] == "NetworkPolicy"]
        for deployment in deployments(resources):
            labels = deployment["spec"]["template"]["metadata"]["labels"]
            for policy in policies:
                true(policy["podSelector"]["matchLabels"].items() <= labels.items(), "a policy is for other pods")
        directions = {direction for policy in policies for direction in policy["policyTypes"]}
        equal(directions, {"Ingress", "Egress"}, "directions that are closed")
        allowed = [rule for one in policies for rule in one.get("egress", [])]
        true(all(rule.get("to") for rule in allowed), "everywhere can be reached")
        outward = {(port["port"], port["protocol"]) for rule in allowed for port in rule["ports"]}
        wanted = {(53, "UDP"), (53, "TCP")}
        wanted |= {(5432, "TCP"), (6379, "TCP")} if name != "single" else set()
        wanted |= {(8080, "TCP")} if name.startswith("roles") else set()
        equal(outward, wanted, f"egress of {name}")
        inward = [rule for one in policies for rule in one.get("ingress", [])]
        equal([p["port"] for rule in inward for p in rule["ports"]], ["http"], "ingress")
        true(all(rule.get("from") for rule in inward), "everybody is let in")


def replicas_can_be_drained_and_grow(overlays):
    """With PostgreSQL one replica may be drained, rollouts lose none, and processors decide how many there are."""
    resources = overlays["replicas"]
    deployment = only(resources, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    budget = only(resources, "PodDisruptionBudget")["spec"]
    true(budget["selector"]["matchLabels"].items() <= labels.items(), "the budget is for other pods")
    equal(budget.get("maxUnavailable"), 1, "maxUnavailable of the budget")
    scaler = only(resources, "HorizontalPodAutoscaler")["spec"]
    equal(scaler["scaleTargetRef"]["name"], deployment["metadata"]["name"], "what is scaled")
    equal(scaler["metrics"][0]["resource"]["name"], "cpu", "what it is scaled by")
    true(2 <= scaler["minReplicas"] < scaler["maxReplicas"], "minReplicas, maxReplicas")
    true("replicas" not in deployment["spec"], "`replicas` would undo what the autoscaler did, at each apply")
    equal(deployment["spec"]["strategy"]["rollingUpdate"], {"maxUnavailable": 0, "maxSurge": 1}, "rollout")
    volume = named(deployment["spec"]["template"]["spec"]["volumes"], "data")
    true("emptyDir" in volume, "each replica needs a data folder of its own")


def roles_are_processes_of_their_own(overlays):
    """Each role has a Deployment, a Service that finds its pods alone, and a budget; secrets go to the role that needs them."""
    for resources in (overlays["roles"], overlays["roles-keda"]):
        settings = tomllib.loads(only(resources, "ConfigMap")["data"]["auspex.toml"])
        equal(set(settings["cluster"]["services"]), set(ROLES) - {"gateway"}, "services of the gateway")
        equal({one["metadata"]["name"] for one in deployments(resources)}, {f"auspex-{role}" for role in ROLES}, "roles")
        for role in ROLES:
            mine = lambda kind: named(of(resources, kind), f"auspex-{role}", lambda one: one["metadata"]["name"])
            deployment, service, budget = mine("Deployment"), mine("Service"), mine("PodDisruptionBudget")
            pod = deployment["spec"]["template"]
            equal(container_of(pod["spec"])["args"], ["serve", "--roles", role], "arguments")
            for selector in (service["spec"]["selector"], budget["spec"]["selector"]["matchLabels"]):
                found = [one["metadata"]["name"] for one in deployments(resources) if selects(selector, one)]
                equal(found, [f"auspex-{role}"], "what a selector of the role finds")
            names = {entry["name"] for entry in container_of(pod["spec"])["env"]}
            equal("AUSPEX__DIALOGUES__MASTER_KEY" in names, role == "dialogues", f"master key of {role}")
            equal("AUSPEX__CLUSTER__SECRET" in names, True, f"secret of {role}")
            true("emptyDir" in named(pod["spec"]["volumes"], "data"), "each process needs a data folder of its own")
            if role == "gateway":
                true("clusterIP" not in service["spec"], "clients need an address of the gateway")
                continue
            # The gateway balances itself: it wants the addresses of the pods, and so their port.
            equal(service["spec"]["clusterIP"], "None", "clusterIP")
            port = container_of(pod["spec"])["ports"][0]["containerPort"]
            place = f"auspex-{role}.{service['metadata']['namespace']}.svc.cluster.local:{port}"
            equal(settings["cluster"]["services"][role], {"dns": place}, f"where {role} is")


def what_scales_finds_what_it_scales(overlays):
    """Autoscalers name a Deployment that leaves its number to them; KEDA's asks for a metric that there is."""
    for name in ("roles", "roles-keda"):
        resources = overlays[name]
        scalers = of(resources, "HorizontalPodAutoscaler") + of(resources, "ScaledObject")
        targets = [one["spec"]["scaleTargetRef"]["name"] for one in scalers]
        equal(targets, ["auspex-inference", "auspex-jobs"][: len(targets)], "what is scaled")
        for deployment in deployments(resources):
            is_scaled = deployment["metadata"]["name"] in targets
            equal("replicas" not in deployment["spec"], is_scaled, f"replicas of {deployment['metadata']['name']}")
    equal(of(overlays["roles"], "ScaledObject"), [], "KEDA, which is off unless it is asked for")
    said = only(overlays["roles-keda"], "ScaledObject")
    equal(said["apiVersion"], "keda.sh/v1alpha1", "apiVersion")
    known = {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod", "triggers"}
    equal(set(said["spec"]), known, "fields of the ScaledObject")
    true(1 <= said["spec"]["minReplicaCount"] < said["spec"]["maxReplicaCount"], "minReplicaCount, maxReplicaCount")
    (trigger,) = said["spec"]["triggers"]
    equal((trigger["type"], set(trigger["metadata"])), ("prometheus", {"serverAddress", "query", "threshold"}), "trigger")
    metric = re.search(r"auspex_\w+", trigger["metadata"]["query"])[0]
    true(f"| `{metric}` |" in OPERATIONS, f"there is no metric {metric}")


def single_server_is_never_two(overlays):
    """With SQLite there is one server, ended before the next one starts, on a volume that stays."""
    resources = overlays["single"]
    spec = only(resources, "Deployment")["spec"]
    equal((spec["replicas"], spec["strategy"]), (1, {"type": "Recreate"}), "replicas, strategy")
    claim = named(pod_of(only(resources, "Deployment"))["volumes"], "data")["persistentVolumeClaim"]["claimName"]
    equal(only(resources, "PersistentVolumeClaim")["metadata"]["name"], claim, "claim")
    kinds = {one["kind"] for one in resources}
    true(not kinds & {"HorizontalPodAutoscaler", "PodDisruptionBudget"}, "nothing may make two, or block a drain")


def settings_of_manifests_are_real(overlays):
    """`auspex config check` takes the settings and variables of every overlay; no value is a secret."""
    for resources, pod in pods(overlays):
        given = {}
        for entry in container_of(pod).get("env", []):
            source = entry.get("valueFrom", {})
            true({"secretKeyRef", "fieldRef"} & set(source), f"{entry['name']} refers neither to a Secret nor to the pod")
            given[entry["name"]] = SECRETS[entry["name"]] if "secretKeyRef" in source else "auspex-5d8f7c9b4-x2k7q"
        check_settings(only(resources, "ConfigMap")["data"]["auspex.toml"], given)
        true(all(one["kind"] != "Secret" for one in resources), "a Secret stands in a file")
        mounts = {mount["mountPath"] for mount in container_of(pod)["volumeMounts"]}
        equal(mounts, {"/etc/auspex", "/data"}, "mounts")


def by_name(resources):
    return {"/".join(kustomize.identity(one)): one for one in resources}


def of(resources, kind):
    return [one for one in resources if one["kind"] == kind]


def only(resources, kind):
    found = of(resources, kind)
    equal(len(found), 1, f"number of {kind}")
    return found[0]


def named(items, name, name_of=lambda item: item["name"]):
    return next(one for one in items if name_of(one) == name)


def deployments(resources):
    return of(resources, "Deployment")


def selects(selector, deployment):
    return selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()


def pods(overlays):
    """Every pod that there is, with the resources of its overlay."""
    for resources in overlays.values():
        true(deployments(resources), "no Deployment")
        for deployment in deployments(resources):
            yield resources, pod_of(deployment)


def pod_of(deployment):
    return deployment["spec"]["template"]["spec"]


def container_of(pod):
    equal(len(pod["containers"]), 1, "containers")
    return pod["containers"][0]


CHECKS = [
    manifests_are_valid,
    pods_are_confined,
    probes_ask_no_database,
    stops_have_time,
    memory_is_that_of_the_document,
    network_is_closed_but_for_what_is_needed,
    replicas_can_be_drained_and_grow,
    single_server_is_never_two,
    roles_are_processes_of_their_own,
    what_scales_finds_what_it_scales,
    settings_of_manifests_are_real,
]
