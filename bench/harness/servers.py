"""How each server is started and asked. All on 127.0.0.1, two processes or two cores each."""

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from .nginx import nginx_command, version
from .paths import MODELS, PEERS, ROOT

OURS = "auspex"
REFERENCE = "fastapi-onnxruntime"
LIMIT = "nginx-constant"
BY_HAND = "axum-ort"
NAMES = (OURS, LIMIT, BY_HAND, REFERENCE, "fastapi-xgboost", "flask-xgboost")

# A caller's own settings must not leak into a server under comparison.
FOREIGN = ("MODEL_PATH", "LOG_LEVEL", "DATABASE_URL", "WEB_CONCURRENCY", "GUNICORN_CMD_ARGS")


@dataclass
class Server:
    name: str
    title: str
    packages: tuple
    """Of requirements.txt, for the report."""
    command: Callable
    """(port, folder for its data) -> list of arguments."""
    cwd: Path
    env: dict = field(default_factory=dict)
    key_file: str | None = None
    """Written by the server into its data folder at the first start."""
    is_constant: bool = False
    """It answers each record as it does the first."""

    def environment(self):
        env = {
            name: value
            for name, value in os.environ.items()
            if name not in FOREIGN and not name.startswith(("AUSPEX", "UVICORN_", "PYTHON"))
        }
        return env | self.env

    def headers(self, data):
        """Those a request needs, or None while the server has not said yet."""
        if self.key_file is None:
            return {}
        try:
            key = Path(data, self.key_file).read_text().strip()
        except OSError:
            return None
        return {"X-API-Key": key} if key else None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def auspex(binary, models=MODELS):
    return Server(
        name=OURS,
        title="Auspex",
        packages=(),
        command=lambda port, data: [
            *(binary, "serve", "--listen", f"127.0.0.1:{port}"),
            *("--data-dir", data, "--models", models),
        ],
        cwd=ROOT,
        # The limiter stays on and counts every request; only its limits are out of reach.
        env={
            "AUSPEX__SERVER__RATE_LIMIT__MAX": "1000000000",
            "AUSPEX__DIALOGUES__RATE_LIMIT__MAX": "1000000000",
        },
        key_file="admin.key",
    )


def fastapi(name, title, module, model, runtime, programs):
    return Server(
        name=name,
        title=title,
        packages=("fastapi", "uvicorn", "uvloop", "httptools", "pydantic", runtime),
        command=lambda port, data: [
            *(programs / "uvicorn", f"{module}:app", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", "2", "--loop", "uvloop", "--http", "httptools"),
            *("--no-access-log", "--log-level", "warning"),
        ],
        cwd=PEERS,
        env={"MODEL_PATH": str(model), "OMP_NUM_THREADS": "1"},
    )


def flask(model, programs):
    return Server(
        name="flask-xgboost",
        title="Flask + xgboost",
        packages=("Flask", "gunicorn", "pydantic", "xgboost-cpu"),
        command=lambda port, data: [
            *(programs / "gunicorn", "flask_xgboost:app", "--bind", f"127.0.0.1:{port}"),
            *("--workers", "2", "--worker-class", "gthread", "--threads", "4"),
            *("--log-level", "warning"),
        ],
        cwd=PEERS,
        env={"MODEL_PATH": str(model), "OMP_NUM_THREADS": "1"},
    )


def axum_ort(binary, library, model):
    return Server(
        name=BY_HAND,
        title="axum + ONNX Runtime",
        packages=("onnxruntime",),
        command=lambda port, data: [binary, str(port), library, model],
        cwd=ROOT,
    )


def constant(body):
    """What a web server can do at most that computes nothing."""

    def command(port, folder):
        os.chmod(folder, 0o755)
        answer = f"default_type application/json; location / {{ return 200 '{body}'; }}"
        return nginx_command(Path(folder), 2, f"    server {{ listen 127.0.0.1:{port}; {answer} }}")

    title = f"nginx {version('nginx', '-v')}, a constant"
    return Server(name=LIMIT, title=title, packages=(), command=command, cwd=ROOT, is_constant=True)
