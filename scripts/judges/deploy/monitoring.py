"""Alert rules and dashboard, against the metrics of running servers. Part of the judge `deploy`."""

import json
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

from asked import setting
from checks import equal, true
from server import MODELS, ROOT, Server, free_port

PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
OPERATIONS = (ROOT / "docs/OPERATIONS.md").read_text()
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
# What Prometheus itself adds to every series.
ADDED = {"job", "instance", "le"}
METRIC = re.compile(r"\bauspex_[a-z_]+")
SELECTOR = re.compile(r"\b(auspex_[a-z_]+)\s*\{([^}]*)\}")
LABEL = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
GROUPING = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
SAMPLE = re.compile(r"^(auspex_[a-z_]+)(?:\{(.*)\})? \S+$")
APPEARS_S = 15

CONFIG = """
[redis]
url = "redis://127.0.0.1:{closed}/0"
[jobs.rabbitmq]
url = "amqp://127.0.0.1:{closed}"
[gateway.services.prices]
endpoints = ["http://127.0.0.1:{closed}"]
health = {{ path = "/", interval_ms = 500 }}
[[gateway.routes]]
path = "/prices/{{*rest}}"
service = "prices"
public = true
cache = {{ ttl_s = 1 }}
"""


class Measured:
    """`with Measured() as measured:` `measured.labels` are the metrics of servers that had something to count."""

    def __enter__(self):
        self.labels = {}
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            models = folder / "models"
            (models / "broken" / "1").mkdir(parents=True)
            (models / "broken" / "1" / "model.ubj").write_bytes(b"not a model")
            (models / "mean-score").symlink_to(MODELS / "mean-score")
            with Server(config=CONFIG.format(closed=free_port()), models=models) as server:
                self.read_until(server, "auspex_gateway_endpoint_healthy")
            certificate = make_certificate(folder)
            self.read_over_tls(certificate)
        return self

    def __exit__(self, *_):
        pass

    def read_until(self, server, last):
        ends = time.monotonic() + APPEARS_S
        while last not in self.labels:
            true(time.monotonic() < ends, f"{last} did not appear within {APPEARS_S} s")
            ask(server.url + "/v1/models/mean-score/predict", server.key, b'{"features": [1, 2, 3, 4]}')
            ask(server.url + "/prices/1", server.key)
            self.add(ask(server.url + "/metrics", server.key))
            time.sleep(0.1)

    def read_over_tls(self, certificate):
        tls = {"AUSPEX__SERVER__TLS__CERT_FILE": str(certificate), "AUSPEX__SERVER__TLS__KEY_FILE": str(certificate)}
        with TlsServer(**tls) as server:
            done = subprocess.run(
                ["curl", "-sk", "-H", f"X-API-Key: {server.key}", f"https://127.0.0.1:{server.port}/metrics"],
                capture_output=True,
                text=True,
                timeout=20,
            )
            self.add(done.stdout)

    def add(self, text):
        for line in text.splitlines():
            found = SAMPLE.match(line)
            if found:
                self.labels.setdefault(found[1], set()).update(LABEL.findall(found[2] or ""))


class TlsServer(Server):
    """One that is ready when its own health command says so."""

    def _wait_until_ready(self):
        ends = time.monotonic() + APPEARS_S
        while time.monotonic() < ends and self.child.poll() is None:
            try:
                self.command("health", "--ready", "--listen", f"127.0.0.1:{self.port}")
                return True
            except AssertionError:
                time.sleep(0.1)
        return False


def ask(url, key, body=None):
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.read().decode()


def make_certificate(folder):
    path = folder / "pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", path, "-out", path], check=True, capture_output=True, timeout=60)
    return path


def queries():
    """(where, PromQL) of every alert and panel."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']!r}", target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]["query"]


def queries_name_metrics_that_there_are(measured):
    """Every alert and panel asks for metrics and labels that a running server has and the document lists."""
    for where, query in queries():
        for metric in METRIC.findall(query):
            true(metric in measured.labels, f"{where}: no server has {metric}")
            family = re.sub("_(bucket|sum|count)$", "", metric)
            true(f"`{family}`" in OPERATIONS, f"{where}: docs/OPERATIONS.md does not list {family}")
        for metric, inside in SELECTOR.findall(query):
            unknown = set(LABEL.findall(inside)) - measured.labels[metric] - ADDED
            equal(sorted(unknown), [], f"{where}: labels that {metric} does not have")
        known = set().union(ADDED, *(measured.labels[metric] for metric in METRIC.findall(query)))
        for inside in GROUPING.findall(query):
            equal(sorted(set(re.findall(r"\w+", inside)) - known), [], f"{where}: grouped by")


def every_metric_is_shown(measured):
    """The dashboard leaves out no metric that a server has."""
    shown = {re.sub("_(bucket|sum|count)$", "", name) for _, query in queries() for name in METRIC.findall(query)}
    there = {re.sub("_(bucket|sum|count)$", "", name) for name in measured.labels}
    equal(sorted(there - shown), [], "metrics that no panel shows")


def promtool_takes_rules_and_queries(_):
    """promtool takes the rules, the configuration, and every query of the dashboard."""
    promtool("check", "rules", PROMETHEUS / "alerts.yml")
    promtool("check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")
    panels = [query for where, query in queries() if where.startswith("panel")]
    rules = [{"record": f"panel:{place}", "expr": plain(query)} for place, query in enumerate(panels)]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}, file)
        file.flush()
        promtool("check", "rules", file.name)


def plain(query):
    """A query without the variables of Grafana."""
    return query.replace("$__rate_interval", "5m").replace("$job", "auspex").replace("$instance", ".*")


def alerts_fire_and_stay_silent_as_tested(_):
    """promtool's tests pass, and each alert has one in which it fires and one in which it does not."""
    promtool("test", "rules", PROMETHEUS / "alerts_test.yml")
    groups = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    tests = [test for group in groups for test in group["alert_rule_test"]]
    for rule in RULES:
        outcomes = {bool(test["exp_alerts"]) for test in tests if test["alertname"] == rule["alert"]}
        equal(outcomes, {True, False}, f"outcomes tested of {rule['alert']}")


def alerts_say_what_to_do(_):
    """Each alert says what has happened and what to do, and leads to a section of OPERATIONS.md."""
    headings = {line.lstrip("# ").lower() for line in OPERATIONS.splitlines() if line.startswith("### ")}
    for rule in RULES:
        said = rule["annotations"]
        true(said["summary"] and said["action"].endswith("."), f"{rule['alert']}: summary, action")
        equal(said["runbook"], f"docs/OPERATIONS.md#{rule['alert'].lower()}", "runbook")
        true(rule["alert"].lower() in headings, f"docs/OPERATIONS.md has no section {rule['alert']}")
        true(rule["labels"]["severity"] in ("critical", "warning"), "severity")


def limits_in_rules_are_those_of_the_settings(_):
    """Where a rule compares with a limit, it is the default of that setting."""
    limits = {
        "AuspexConnectionsNearLimit": setting("server", "connections_max"),
        "AuspexPendingTextsNearLimit": setting("dialogues", "pending", "bytes_max"),
    }
    for rule in RULES:
        if rule["alert"] in limits:
            equal(rule["expr"].split()[-1], str(limits.pop(rule["alert"])), rule["alert"])
    equal(limits, {}, "rules that are not there")


def panels_are_whole(_):
    """Panels have ids of their own, do not overlap, and use the data source that is chosen."""
    panels = DASHBOARD["panels"]
    equal(len({panel["id"] for panel in panels}), len(panels), "ids")
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        true(not cells & taken and at["x"] + at["w"] <= 24, f"{panel['title']} overlaps another")
        taken |= cells
        for target in panel.get("targets", []):
            equal(target["datasource"]["uid"], "${datasource}", f"data source of {panel['title']}")


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    equal(done.returncode, 0, f"promtool {arguments[0]} {arguments[1]}: {done.stdout}{done.stderr}")


CHECKS = [
    queries_name_metrics_that_there_are,
    every_metric_is_shown,
    promtool_takes_rules_and_queries,
    alerts_fire_and_stay_silent_as_tested,
    alerts_say_what_to_do,
    limits_in_rules_are_those_of_the_settings,
    panels_are_whole,
]
