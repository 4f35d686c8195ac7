"""Judge: does what is in `deploy/`, and the Dockerfile, hold what an operator is promised?

Without Docker and without a cluster: the image's files and command run as a container would run them, the
manifests are rendered and read field by field, and everything that names a setting or a metric is asked of
the binary itself.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "lib"), str(HERE / "deploy")]

import balancer
import compose
import manifests
import monitoring
from checks import Checks, equal, true
from image import Image, instructions
from server import ROOT, STOP_S, free_port, is_ready

NEED = """
source scripts/lib/steps.sh
need "promtool --version" prometheus
need "haproxy -v" haproxy
need "redis-server --version" redis-server
"""
READY_S = 15
KEY_KNOWN_S = 5  # until a running server knows a key that a command has made: about one
# What a stop takes at most: server.drain_timeout_ms, and seconds for traces.
DRAIN_S = 30


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
    subprocess.run(["bash", "-c", NEED], cwd=ROOT, check=True, stdin=subprocess.DEVNULL)
    checks = Checks()
    checks.run_all([dockerfile_is_as_promised, context_has_what_the_build_reads], None)
    if os.geteuid() == 0:
        with Image() as image:
            checks.run_all([container_serves_and_stops, container_needs_nothing_else], image)
    else:
        print("SKIPPED the container: only root may mount its files")
    overlays = manifests.overlays()
    checks.run_all(manifests.CHECKS, overlays)
    if shutil.which("kubectl"):
        checks.run_all([manifests.loader_renders_what_kubectl_renders], overlays)
    checks.run_all(compose.CHECKS, None)
    if compose.is_at_hand():
        checks.run_all([compose.docker_compose_takes_it], None)
    with monitoring.Measured() as measured:
        checks.run_all(monitoring.CHECKS, measured)
    if balancer.POSTGRES:
        with balancer.Deployment() as deployment:
            checks.run_all(balancer.CHECKS, deployment)
    else:
        print("SKIPPED the balancer: AUSPEX_TEST_POSTGRES_URL names no PostgreSQL")
    checks.finish()


if __name__ == "__main__":
    main()
