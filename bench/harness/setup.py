"""Everything a run needs that is not in the repository: peers, converted model, binaries.

Each step is skipped when its inputs are the ones it last ran with.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys

from .paths import BENCH, PEERS, ROOT, VENV

SERVING = BENCH / "requirements.txt"
CONVERTING = BENCH / "requirements-convert.txt"


class SetupError(Exception):
    """A step failed; the message says which and why."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def run_step(what, command, **options):
    try:
        subprocess.run(command, check=True, **options)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"{what} failed: {error}") from error


def fingerprint(*files):
    digest = hashlib.sha256(sys.version.encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def stamped(stamp, value):
    return stamp.exists() and stamp.read_text() == value


def install(name, requirements):
    """A virtual environment with exactly these packages; its folder of programs."""
    venv = VENV / name
    stamp = venv / "stamp"
    wanted = fingerprint(requirements)
    if not stamped(stamp, wanted):
        say(f"installing {requirements.relative_to(ROOT)} …")
        shutil.rmtree(venv, ignore_errors=True)
        run_step("creating a virtual environment", [sys.executable, "-m", "venv", venv])
        pip = [venv / "bin" / "pip", "--disable-pip-version-check", "install", "--quiet"]
        run_step("installing packages", [*pip, "-r", requirements])
        stamp.write_text(wanted)
    return venv / "bin"


def install_peers():
    return install("peers", SERVING)


def convert_model(model, records, expected):
    """The model as ONNX, checked against the expected answers."""
    out = VENV / "model.onnx"
    stamp = VENV / "model.onnx.stamp"
    converter = PEERS / "convert.py"
    inputs = (model, records, expected, CONVERTING, converter, PEERS / "customer.py")
    wanted = fingerprint(*inputs)
    if not (out.exists() and stamped(stamp, wanted)):
        python = install("convert", CONVERTING) / "python"
        say("converting the model to ONNX …")
        log = VENV / "convert.log"
        with open(log, "wb") as output:
            command = [python, converter, model, records, expected, out]
            try:
                subprocess.run(command, check=True, stdout=output, stderr=subprocess.STDOUT)
            except (OSError, subprocess.CalledProcessError) as error:
                raise SetupError(f"conversion failed: {error}; see {log}") from error
        say(log.read_text().splitlines()[-1])
        stamp.write_text(wanted)
    return out


def target_dir():
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
    try:
        found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"cargo metadata failed: {error}") from error
    return json.loads(found.stdout)["target_directory"]


def build(*arguments, profile="release"):
    say(f"cargo build --profile {profile} {' '.join(map(str, arguments))}".rstrip() + " …")
    run_step("cargo build", ["cargo", "build", "--profile", profile, "--quiet", *arguments], cwd=ROOT)


def build_own(name):
    """A program of the benchmarks."""
    build("-p", name)
    return os.path.join(target_dir(), "release", name)


def build_auspex():
    """The program as images have it, optimized across crates as the peer in Rust is."""
    build("--locked", "--bin", "auspex", profile="dist")
    return os.path.join(target_dir(), "dist", "auspex")


def build_axum_ort():
    """Its program. It is no member of the workspace, so that ONNX Runtime's crate is none of the product's."""
    out = VENV / "axum-ort"
    build("--locked", "--manifest-path", PEERS / "axum_ort" / "Cargo.toml", "--target-dir", out)
    return out / "release" / "axum-ort"


def onnxruntime_library(programs):
    """The shared library within the Python package, so that both peers run the same one."""
    found = sorted(programs.parent.glob("lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so*"))
    if not found:
        raise SetupError(f"there is no libonnxruntime.so in {programs.parent}")
    return found[0]


def pinned_versions():
    """{package: version} of the peers."""
    lines = SERVING.read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)
