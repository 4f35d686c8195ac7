"""A server under test: the release binary with a data folder of its own, started, asked, stopped."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
BINARY = Path(os.environ.get("AUSPEX_BINARY", TARGET / "release" / "auspex"))
MODELS = ROOT / "models"
RECORDS = ROOT / "crates" / "engine" / "tests" / "data" / "santander"

READY_S = 10
STOP_S = 35  # the server gives requests in flight 30 s

# The limiter counts as ever; its limits are out of reach.
NO_LIMITS = {
    "AUSPEX__SERVER__RATE_LIMIT__MAX": "1000000",
    "AUSPEX__DIALOGUES__RATE_LIMIT__MAX": "1000000000",
    "AUSPEX__SERVER__ADDRESS_LIMIT__MAX": "1000000",
}
# What a developer has set for a server of their own must not reach this one.
FOREIGN = ("MODEL_PATH", "LOG_LEVEL", "DATABASE_URL")

# A time limit from outside ends us by SIGTERM; like this the servers end too.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def environment(**more):
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in FOREIGN and not name.startswith("AUSPEX__")
    }
    return kept | more


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_ready(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2) as answer:
            return answer.status == 200
    except (OSError, urllib.error.HTTPError):
        return False


class Server:
    """`with Server() as server:` a running one at `server.url`, with `server.key` for everything.

    `config` is the text of a settings file, for what no environment variable can say; `models` the
    folder it serves; `data` its data folder, if that is to be a particular one; `key` a key that its
    database has already. `exit_code` is there after the end: 0 when it stopped as it should.
    """

    def __init__(self, config="", models=MODELS, data=None, key=None, **settings):
        self.config = config
        self.key = key
        self.models = models
        self.data = data
        self.env = environment(**(NO_LIMITS | settings))
        self.exit_code = None

    def __enter__(self):
        if not BINARY.exists():
            raise SystemExit(f"{BINARY} is not there; run: cargo build --release --locked")
        self.folder = Path(tempfile.mkdtemp(prefix="auspex-"))
        self.data = self.data or self.folder / "data"
        (self.folder / "auspex.toml").write_text(self.config)
        for attempt in range(3):  # somebody else may take the free port first
            self.port = free_port()
            self.url = f"http://127.0.0.1:{self.port}"
            if self._start("wb"):
                self.key = self.key or (self.data / "admin.key").read_text().strip()
                return self
            self.stop()
            if attempt == 2 or "in use" not in self.log():
                log = self.log()
                shutil.rmtree(self.folder)
                raise SystemExit(f"the server was not ready within {READY_S} s; it said:\n{log}")
        raise AssertionError("unreachable")

    def kill_and_start(self):
        """Ends it without warning, and starts it again with the same address and data."""
        self.kill()
        self.start_again()

    def kill(self):
        self.child.kill()
        self.child.wait()

    def start_again(self):
        if not self._start("ab"):
            raise AssertionError(f"it did not start again:\n{self.log()}")

    def _start(self, log_mode):
        with open(self.folder / "log", log_mode) as log:
            self.child = subprocess.Popen(
                [
                    *(BINARY, "serve", "--listen", f"127.0.0.1:{self.port}"),
                    *("--data-dir", self.data, "--models", self.models),
                ],
                env=self.env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self._wait_until_ready()

    def _wait_until_ready(self):
        ends = time.monotonic() + READY_S
        while time.monotonic() < ends and self.child.poll() is None:
            if is_ready(self.port):
                return True
            time.sleep(0.05)
        return False

    def stop(self):
        self.child.terminate()
        try:
            self.exit_code = self.child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.exit_code = self.child.wait(STOP_S)

    def __exit__(self, kind, *_):
        self.stop()
        if kind is not None or self.exit_code != 0:
            print(f"--- the server's last words (exit code {self.exit_code})\n{self.log()}", flush=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def running(self):
        return self.child.poll() is None

    def log(self, lines=40):
        text = (self.folder / "log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def rss_mb(self):
        """Resident memory in MB (10^6 bytes)."""
        for line in Path("/proc", str(self.child.pid), "status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise RuntimeError("the server has gone")

    def command(self, *arguments, said=""):
        """Standard output of `auspex ARGUMENTS` beside this server, which reads `said`."""
        done = subprocess.run(
            [BINARY, *arguments, "--data-dir", self.data, "--models", self.models],
            env=self.env,
            cwd=self.folder,
            input=said,
            capture_output=True,
            text=True,
            timeout=30,
        )
        if done.returncode != 0:
            raise AssertionError(f"auspex {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.strip()
