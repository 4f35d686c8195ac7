"""One server, once: start it, wait for its first right answer, load it, weigh it, stop it."""

import http.client
import json
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from .paths import RESULTS
from .process import ServerProcess, machine_cpu_s
from .servers import free_port

START_S_MAX = 60
POLL_S = 0.0005
ANSWER_S_MAX = 10
TOLERANCE = 1e-5
LOG_LINES = 15


class ServerError(Exception):
    """The server did not do its part; the message says how."""


def measure(server, load, settings):
    """What one round found: {"start_s", "memory_mb", "load": {connections: figures}}."""
    RESULTS.mkdir(exist_ok=True)
    log = RESULTS / f"{server.name}.log"
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as data:
        command = [str(part) for part in server.command(port, data)]
        try:
            process = ServerProcess(command, server.environment(), server.cwd, log)
        except OSError as error:
            raise ServerError(f"cannot start: {error}") from error
        expected = load.expected
        if server.is_constant:
            expected = Path(data, "expected.jsonl")
            line = json.dumps(load.first_expected) + "\n"
            expected.write_text(line * sum(1 for _ in open(load.records, "rb")))
        with process:
            try:
                start_s, headers = first_prediction(process, server, port, data, load)
                process.settle()
                figures = {
                    count: drive(process, port, headers, load, expected, settings, count)
                    for count in settings.connections
                }
            except ServerError as error:
                tail = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
                said = "".join(f"\n    | {line}" for line in tail)
                raise ServerError(f"{error}{said}") from error
            return {"start_s": start_s, "memory_mb": process.memory_mb(), "load": figures}


def first_prediction(process, server, port, data, load):
    """Seconds from the start of the process to a right answer, and the headers that brought it."""
    problem = "not listening"
    while time.monotonic() - process.started < START_S_MAX:
        if not process.running():
            raise ServerError(f"ended at its start with status {process.child.returncode}")
        headers = server.headers(data)
        if headers is not None:
            problem = ask(port, headers, load)
            if problem is None:
                return time.monotonic() - process.started, headers
        time.sleep(POLL_S)
    raise ServerError(f"no right answer within {START_S_MAX} s: {problem}")


def ask(port, headers, load):
    """None when the first record is answered rightly, else what is wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S_MAX)
    try:
        headers = {"Content-Type": "application/json"} | headers
        connection.request("POST", "/predict", load.first_record, headers)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            return f"status {response.status}: {body[:300].decode(errors='replace')}"
        (got,) = json.loads(body)["predictions"]
        expected = load.first_expected
        right = len(got) == len(expected) and all(
            abs(a - b) <= TOLERANCE for a, b in zip(got, expected, strict=True)
        )
        return None if right else f"wrong answer: {body[:300].decode(errors='replace')}"
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def drive(process, port, headers, load, expected, settings, connections):
    """The load generator's report, with the processor time both sides used."""
    command = [
        *(load.loadgen, "--json", "--url", f"http://127.0.0.1:{port}/predict"),
        *("--records", load.records, "--expected", expected),
        *("--connections", connections, "--duration-s", settings.seconds),
        *("--warmup-s", settings.warmup, "--timeout-s", ANSWER_S_MAX),
    ]
    for name, value in headers.items():
        command += ["--header", f"{name}: {value}"]
    before = processor_times(process)
    try:
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            text=True,
            timeout=settings.warmup + settings.seconds + 3 * ANSWER_S_MAX,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"the load generator did not end: {error}") from error
    used = [after - start for after, start in zip(processor_times(process), before, strict=True)]
    try:
        report = json.loads(done.stdout)
    except ValueError as error:
        raise ServerError(f"the load generator failed: {done.stderr.strip()}") from error
    if done.returncode != 0:
        samples = "".join(f"\n    {sample}" for sample in report["samples"])
        raise ServerError(
            f"{report['errors_total']} of its requests failed with {connections} connections: "
            f"{report['errors']} {report['statuses']}{samples}"
        )
    server, loadgen, machine = (cpu_s / (settings.seconds + settings.warmup) for cpu_s in used)
    others = max(0.0, machine - server - loadgen)
    return report | {"server_cores": server, "loadgen_cores": loadgen, "other_cores": others}


def processor_times(process):
    """Seconds used so far by the server, by the load generators, and by the whole machine."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return process.cpu_s(), children.ru_utime + children.ru_stime, machine_cpu_s()
