"""What the binary itself says of settings. Part of the judge `deploy`."""

import subprocess
import tempfile
import tomllib
from pathlib import Path

from checks import equal
from server import BINARY, ROOT, environment

# Values for variables whose own come from a secret.
SECRETS = {
    "DATABASE_URL": "postgres://auspex:secret@postgres/auspex",
    "AUSPEX__DIALOGUES__KEYS_URL": "postgres://auspex:secret@postgres/auspex_keys",
    "AUSPEX__REDIS__URL": "redis://:secret@redis:6379/0",
    "AUSPEX__CLUSTER__SECRET": "0123456789abcdef0123456789abcdef",
    "AUSPEX__DIALOGUES__MASTER_KEY": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
}


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
