"""The compose file. Part of the judge `deploy`."""

import re
import shutil
import subprocess
import tomllib

import yaml

from asked import SECRETS, check_settings, setting
from checks import equal, true
from image import Image, instructions
from server import ROOT, environment

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
ROLES = yaml.safe_load((DEPLOY / "compose.roles.yaml").read_text())["services"]
SERVICES = COMPOSE["services"]
DOCKER_COMPOSE = ["docker", "compose"]
VARIABLE = re.compile(r"\$\{(\w+):\?[^}]*\}")
WANTED = ("auspex", "balancer", "blackbox", "grafana", "postgres", "prometheus", "rabbitmq", "redis")


def services_are_there_and_their_files_too(_):
    """Every service has an image with a version, and every file that it mounts is there."""
    equal(sorted(SERVICES), sorted(WANTED), "services")
    equal(SERVICES["auspex"]["deploy"]["replicas"], 2, "replicas")
    for name, service in SERVICES.items():
        true(re.fullmatch(r"[\w./-]+:v?\d[\w.-]*", service["image"]), f"{name}: {service['image']}")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                true((DEPLOY / source).exists(), f"{name} mounts {source}, which is not there")
            else:
                true(source in COMPOSE["volumes"], f"{name}: there is no volume {source}")
        for network in service["networks"]:
            true(network in COMPOSE["networks"], f"{name}: there is no network {network}")
    true(COMPOSE["networks"]["back"]["internal"], "the network of the database leads outside")
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    true(all(port.startswith("127.0.0.1:") for port in published), f"open to all the world: {published}")


def secrets_stand_in_no_file(_):
    """Passwords and keys come from variables without a default, which git never sees."""
    named = {name for file in ("compose.yaml", "compose.roles.yaml") for name in VARIABLE.findall((DEPLOY / file).read_text())}
    lines = [line for line in (DEPLOY / "env.example").read_text().splitlines() if line and line[0] != "#"]
    equal({line.split("=")[0] for line in lines}, named, "variables of env.example")
    equal([line for line in lines if not line.endswith("=")], [], "lines of env.example with a value")
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|KEY|URL", variable):
                true(VARIABLE.search(value), f"{name}: {variable} stands in the file")
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    true({"/deploy/.env", "/deploy/secrets/*"} <= set(ignored), "git does not ignore the secrets")
    for one in COMPOSE["secrets"].values():
        true(one["file"].startswith("./secrets/"), one["file"])


def settings_of_compose_are_real(_):
    """`auspex config check` takes the settings and variables of the servers."""
    service = SERVICES["auspex"]
    wanted = SECRETS | {"AUSPEX__JOBS__RABBITMQ__URL": "amqp://auspex:secret@rabbitmq:5672/%2f"}
    del wanted["AUSPEX__CLUSTER__SECRET"]  # one process has all roles
    equal(set(service["environment"]), set(wanted), "variables")
    given = filled(service["environment"])
    equal(given, wanted, "values of the variables")
    text = (DEPLOY / "auspex/auspex.toml").read_text()
    check_settings(text, given)
    balancer = SERVICES["balancer"]["networks"]["front"]["ipv4_address"]
    true(f'trusted_proxies = ["{balancer}"]' in text, "the balancer is not the proxy that is trusted")


def roles_are_processes_of_their_own(_):
    """With compose.roles.yaml every role has a process that is like a server else, and the gateway knows where each is."""
    text = (DEPLOY / "auspex/auspex.toml").read_text()
    served = set()
    for name, service in ROLES.items():
        given = filled(SERVICES["auspex"]["environment"] | service["environment"])
        check_settings(text, given)
        equal(given["AUSPEX__CLUSTER__SECRET"], SECRETS["AUSPEX__CLUSTER__SECRET"], f"secret of {name}")
        served.add(given["AUSPEX__SERVER__ROLES"])
        if name == "auspex":
            gateway = given
            continue
        equal(service["extends"], {"file": "compose.yaml", "service": "auspex"}, f"what {name} extends")
        equal(given["AUSPEX__SERVER__ROLES"], name, f"roles of {name}")
    equal(gateway["AUSPEX__SERVER__ROLES"], "gateway", "roles of what is behind the balancer")
    prefix = "AUSPEX__CLUSTER__SERVICES__"
    there = {name.removeprefix(prefix): place for name, place in gateway.items() if name.startswith(prefix)}
    others = served - {"gateway"}
    equal(there, {f"{role.upper()}__DNS": f"{role}:8080" for role in others}, "where the roles are")
    equal(served, {"gateway", "identity", "inference", "dialogues", "jobs"}, "roles")


def servers_are_confined_and_stop_in_time(_):
    """Servers have a read-only root, no privileges, the memory of the document, a volume each, time to stop."""
    service, image = SERVICES["auspex"], Image()
    true(service["read_only"] is True, "read_only")
    equal(service["cap_drop"], ["ALL"], "cap_drop")
    equal(service["security_opt"], ["no-new-privileges:true"], "security_opt")
    user, group = image.user.split(":")
    wanted = f"{image.variables['AUSPEX__SERVER__DATA_DIR']}:uid={user},gid={group},mode=0700,"
    true(service["tmpfs"][0].startswith(wanted), f"{service['tmpfs']} is not {wanted}…")
    true("cpus" in service, "without a limit of processors their number decides how much memory is taken")
    documented = re.search(r"docker run --memory (\d+m)", (ROOT / "docs/OPERATIONS.md").read_text())[1]
    equal(service["mem_limit"], documented, "mem_limit")
    own = tomllib.loads((DEPLOY / "auspex/auspex.toml").read_text())["server"]
    drain_ms = setting("server", "drain_timeout_ms") + setting("server", "linger_timeout_ms") + own["shutdown_delay_ms"]
    true(int(service["stop_grace_period"].removesuffix("s")) >= drain_ms / 1000 + 5, "stop_grace_period")
    mounts = {volume.split(":")[1] for volume in service["volumes"]}
    equal(mounts, {image.working_folder, image.variables["AUSPEX__INFERENCE__MODELS"]}, "mounts")
    exposed = dict(instructions((ROOT / "Dockerfile").read_text())[0])["EXPOSE"].strip()
    for file in ("haproxy/haproxy.cfg", "prometheus/prometheus.yml"):
        true(exposed in (DEPLOY / file).read_text(), f"{file} asks another port than {exposed}")


def docker_compose_takes_it(_):
    """Where Docker Compose is at hand, it takes the file, and that of the roles beside it."""
    files = [DEPLOY / "compose.yaml", DEPLOY / "compose.roles.yaml"]
    variables = {name: "x" for file in files for name in VARIABLE.findall(file.read_text())}
    for given in (files[:1], files):
        done = subprocess.run(
            [*DOCKER_COMPOSE, *(word for file in given for word in ("--file", file)), "config", "--quiet"],
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=30,
        )
        equal(done.returncode, 0, done.stderr)


def filled(variables):
    """Variables of a server with the secrets of a test in the place of those of deploy/.env."""
    secret = lambda name, value: SECRETS[name] if re.search("_KEY$|SECRET$", name) else VARIABLE.sub("secret", value)
    return {name: secret(name, value) for name, value in variables.items()}


def is_at_hand():
    asked = [*DOCKER_COMPOSE, "version"]
    return bool(shutil.which(asked[0])) and subprocess.run(asked, capture_output=True, timeout=30).returncode == 0


CHECKS = [
    services_are_there_and_their_files_too,
    secrets_stand_in_no_file,
    settings_of_compose_are_real,
    roles_are_processes_of_their_own,
    servers_are_confined_and_stop_in_time,
]
