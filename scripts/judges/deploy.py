"""Judge: does what is in `deploy/`, and the Dockerfile, hold what an operator is promised?

Without Docker and without a cluster: the image's files and command run as a container would run them, the
manifests are rendered and read field by field, and everything that names a setting or a metric is asked of
the binary itself.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import kubernetes_validate
import yaml

import kustomize
from checks import Checks, equal, true
from image import Image, instructions
from server import BINARY, ROOT, STOP_S, environment, free_port, is_ready

DEPLOY = ROOT / "deploy"
OPERATIONS = (ROOT / "docs/OPERATIONS.md").read_text()
KUBERNETES = "1.37"
READY_S = 15
KEY_KNOWN_S = 5  # until a running server knows a key that a command has made: about one
# What a stop takes at most: server.drain_timeout_ms, and seconds for traces.
DRAIN_S = 30

# --- the image


def dockerfile_is_as_promised(_):
    """The image is built in stages, runs by number as nobody of weight, and asks for its own health."""
    last, every = instructions((ROOT / "Dockerfile").read_text())
    said = dict(last)
    equal([rest for name, rest in every if name == "FROM"][-1], "scratch", "last stage")
    toolchain = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    true(f"rust:{toolchain}-" in every[0][1], f"{every[0][1]} is not the toolchain {toolchain}")
    true(re.fullmatch(r"[1-9]\d*:[1-9]\d*", said["USER"].strip()), f"USER {said['USER']}")
    true(said["HEALTHCHECK"].endswith('CMD ["/usr/bin/auspex", "health"]'), said["HEALTHCHECK"])
    build = " ".join(rest for name, rest in every if name == "RUN")
    true("--profile dist" in build and "--locked" in build, build)
    true("dist" in tomllib.loads((ROOT / "Cargo.toml").read_text())["profile"], "there is no profile dist")


def context_has_what_the_build_reads(_):
    """.dockerignore lets in every member of the workspace, and no secret."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = [line[1:] for line in lines if line.startswith("!")]
    true("*" in lines, "it must begin by leaving out all")
    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    for wanted in [*members, "Cargo.toml", "Cargo.lock", "models", "deploy/image-root"]:
        wanted = wanted.removesuffix("/*")
        true(any(wanted == name or wanted.startswith(f"{name}/") for name in let_in), f"{wanted} is left out")
    for name in let_in:
        true((ROOT / name).exists(), f"{name} is not there")
        true(not name.startswith(("data", "deploy/.env", "deploy/secrets")), f"{name} may hold secrets")


def container_serves_and_stops(image):
    """In the image, as its user, on a read-only root, the server predicts, tells its health and stops in time."""
    port = free_port()
    listen = {"AUSPEX__SERVER__LISTEN": f"0.0.0.0:{port}"}
    settings = image.root / "etc/auspex/auspex.toml"
    settings.write_text('[telemetry]\naccess_log = "all"\n')
    equal(image.start(*image.health, **listen).wait(10), 1, "health of a server that is not there")
    server = image.start(*image.command, **listen)
    try:
        wait_until_ready(server, port)
        status = Path("/proc", str(server.pid), "status").read_text()
        user = image.user.split(":")[0]
        true(re.search(rf"^Uid:\s+{user}\s+{user}\s+{user}\s+{user}$", status, re.M), status)
        true(re.search(r"^CapEff:\s+0+$", status, re.M), "it has capabilities")
        equal(image.start(*image.health, **listen).wait(10), 0, "exit code of the health check")
        equal(image.start(*image.health, "--ready", **listen).wait(10), 0, "exit code of health --ready")
        made = image.start("/usr/bin/auspex", "keys", "create", "--name", "judge", "--scope", "predict")
        key = made.communicate(timeout=10)[0].strip().splitlines()[-1]
        equal(predict(port, key)["prediction"], 1, "prediction")
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        log = server.communicate(timeout=STOP_S)[0]
        equal(server.returncode, 0, "exit code after SIGTERM")
        true(time.monotonic() - began < DRAIN_S, "it took longer than it may")
    finally:
        if server.poll() is None:
            server.kill()
        settings.unlink()
    true("/v1/models/{model}/predict" in log, f"/etc/auspex/auspex.toml was not read:\n{log}")
    outside = [path for path in image.root.rglob("*") if path.is_file() and path.stat().st_uid == int(user)]
    equal(outside, [], "files that it wrote outside of its volume")


def container_needs_nothing_else(image):
    """The image has no shell, and a root that cannot be written keeps no start but one without its volume."""
    programs = sorted(path.name for path in image.root.glob("**/bin/*"))
    equal(programs, ["auspex"], "programs")
    other = image.start(*image.command, AUSPEX__SERVER__DATA_DIR="/elsewhere", AUSPEX__SERVER__LISTEN="127.0.0.1:0")
    said = other.communicate(timeout=20)[0]
    true(other.returncode == 2 and "server.data_dir" in said, f"{other.returncode}: {said}")


# --- Kubernetes


def manifests_are_valid(overlays):
    """Every resource of both overlays is valid to Kubernetes' own schemas, without unknown fields."""
    for resources in overlays.values():
        for one in resources:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)


def loader_renders_what_kubectl_renders(overlays):
    """Where kubectl is at hand, it renders the same resources."""
    for name, resources in overlays.items():
        done = subprocess.run(
            ["kubectl", "kustomize", DEPLOY / "kubernetes" / name], capture_output=True, text=True, timeout=30
        )
        equal(done.returncode, 0, done.stderr)
        theirs = by_name(yaml.safe_load_all(done.stdout))
        equal(by_name(resources), theirs, f"overlay {name}")


def pods_are_confined(overlays):
    """Pods run as nobody of weight on a read-only root, without privileges, tokens and service links."""
    for resources in overlays.values():
        pod = pod_of(resources)
        context, container = pod["securityContext"], container_of(resources)
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
    for resources in overlays.values():
        container = container_of(resources)
        paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
        equal(paths, {"startup": "/health/live", "liveness": "/health/live", "readiness": "/health/ready"}, "probes")


def stops_have_time(overlays):
    """A pod is out of its Service before the server closes its listener, and has time to drain."""
    for resources in overlays.values():
        pod, container = pod_of(resources), container_of(resources)
        pause = container["lifecycle"]["preStop"]
        equal(list(pause), ["sleep"], "preStop must need no program in the image")
        seconds = pause["sleep"]["seconds"]
        true(seconds >= 2, "preStop is too short for a Service to follow")
        drain_ms = setting("server", "drain_timeout_ms") + setting("server", "linger_timeout_ms")
        true(pod["terminationGracePeriodSeconds"] >= seconds + drain_ms / 1000 + 5, "terminationGracePeriodSeconds")


def memory_is_that_of_the_document(overlays):
    """Requests and limits are there, and the memory is what OPERATIONS.md says a server with the defaults needs."""
    documented = int(re.search(r"give the\s+process or container (\d+) MB", OPERATIONS)[1])
    for resources in overlays.values():
        given = container_of(resources)["resources"]
        equal(given["limits"]["memory"], f"{documented}Mi", "memory limit")
        equal(given["requests"]["memory"], given["limits"]["memory"], "memory request")
        true({"cpu"} <= set(given["requests"]) & set(given["limits"]), "processors")


def network_is_closed_but_for_what_is_needed(overlays):
    """Pods reach DNS, and with PostgreSQL the database; they are reached at their port alone."""
    for name, resources in overlays.items():
        labels = only(resources, "Deployment")["spec"]["template"]["metadata"]["labels"]
        policies = [one["spec"] for one in resources if one["kind"] == "NetworkPolicy"]
        for policy in policies:
            true(policy["podSelector"]["matchLabels"].items() <= labels.items(), "a policy is for other pods")
        directions = {direction for policy in policies for direction in policy["policyTypes"]}
        equal(directions, {"Ingress", "Egress"}, "directions that are closed")
        outward = {(p["port"], p["protocol"]) for one in policies for rule in one.get("egress", []) for p in rule["ports"]}
        wanted = {(53, "UDP"), (53, "TCP")} | ({(5432, "TCP")} if name == "replicas" else set())
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
    volume = named(pod_of(resources)["volumes"], "data")
    true("emptyDir" in volume, "each replica needs a data folder of its own")


def single_server_is_never_two(overlays):
    """With SQLite there is one server, ended before the next one starts, on a volume that stays."""
    resources = overlays["single"]
    spec = only(resources, "Deployment")["spec"]
    equal((spec["replicas"], spec["strategy"]), (1, {"type": "Recreate"}), "replicas, strategy")
    claim = named(pod_of(resources)["volumes"], "data")["persistentVolumeClaim"]["claimName"]
    equal(only(resources, "PersistentVolumeClaim")["metadata"]["name"], claim, "claim")
    kinds = {one["kind"] for one in resources}
    true(not kinds & {"HorizontalPodAutoscaler", "PodDisruptionBudget"}, "nothing may make two, or block a drain")


def settings_of_manifests_are_real(overlays):
    """`auspex config check` takes the settings and variables of every overlay; no value is a secret."""
    for resources in overlays.values():
        given = {}
        for entry in container_of(resources).get("env", []):
            true("secretKeyRef" in entry.get("valueFrom", {}), f"{entry['name']} is no reference to a Secret")
            given[entry["name"]] = EXAMPLES[entry["name"]]
        check_settings(only(resources, "ConfigMap")["data"]["auspex.toml"], given)
        true(all(one["kind"] != "Secret" for one in resources), "a Secret stands in a file")
        mounts = {mount["mountPath"] for mount in container_of(resources)["volumeMounts"]}
        equal(mounts, {"/etc/auspex", "/data"}, "mounts")


# Values for variables whose own come from a secret.
EXAMPLES = {
    "DATABASE_URL": "postgres://auspex:secret@postgres/auspex",
    "AUSPEX__DIALOGUES__KEYS_URL": "postgres://auspex:secret@postgres/auspex_keys",
    "AUSPEX__DIALOGUES__MASTER_KEY": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
}

# --- what the parts share


def by_name(resources):
    return {"/".join(kustomize.identity(one)): one for one in resources}


def only(resources, kind):
    found = [one for one in resources if one["kind"] == kind]
    equal(len(found), 1, f"number of {kind}")
    return found[0]


def named(items, name):
    return next(one for one in items if one["name"] == name)


def pod_of(resources):
    return only(resources, "Deployment")["spec"]["template"]["spec"]


def container_of(resources):
    containers = pod_of(resources)["containers"]
    equal(len(containers), 1, "containers")
    return containers[0]


def setting(*keys):
    done = subprocess.run([BINARY, "config", "defaults"], capture_output=True, text=True, check=True, timeout=20)
    value = tomllib.loads(done.stdout)
    for key in keys:
        value = value[key]
    return value


def check_settings(text, variables):
    """`auspex config check` of a settings file and variables, on folders that this machine has."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "auspex.toml").write_text(text)
        done = subprocess.run(
            [BINARY, "config", "check", "--models", ROOT / "models", "--data-dir", Path(folder) / "data"],
            cwd=folder,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=20,
        )
    equal(done.returncode, 0, f"config check: {done.stdout}{done.stderr}")


def wait_until_ready(child, port):
    ends = time.monotonic() + READY_S
    while not is_ready(port):
        if child.poll() is not None or time.monotonic() > ends:
            child.kill()
            raise AssertionError(f"it was not ready within {READY_S} s: {child.communicate(timeout=10)[0]}")
        time.sleep(0.05)


def predict(port, key):
    body = json.dumps({"f0": 0.5, "f1": 1.2, "f2": -0.3, "f3": 0.8}).encode()
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{port}/v1/models/mean-score/predict"
    ends = time.monotonic() + KEY_KNOWN_S
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            if refused.code != 401 or time.monotonic() > ends:
                raise
        time.sleep(0.1)


def main():
    checks = Checks()
    checks.run_all([dockerfile_is_as_promised, context_has_what_the_build_reads], None)
    with Image() as image:
        checks.run_all([container_serves_and_stops, container_needs_nothing_else], image)
    overlays = {name: kustomize.render(DEPLOY / "kubernetes" / name) for name in ("single", "replicas")}
    in_cluster = [
        manifests_are_valid,
        pods_are_confined,
        probes_ask_no_database,
        stops_have_time,
        memory_is_that_of_the_document,
        network_is_closed_but_for_what_is_needed,
        replicas_can_be_drained_and_grow,
        single_server_is_never_two,
        settings_of_manifests_are_real,
    ]
    if shutil.which("kubectl"):
        in_cluster.append(loader_renders_what_kubectl_renders)
    checks.run_all(in_cluster, overlays)
    checks.finish()


if __name__ == "__main__":
    main()
