"""Programs in JavaScript beside the judges; scripts/judges/node has installed what they need."""

import os
import re
import shutil
import subprocess

from server import TARGET

PROGRAMS = TARGET / "judges-node" / "scripts" / "judges"
# The packages are found above the path that is given, not above the one behind the link.
NODE = ("node", "--preserve-symlinks", "--preserve-symlinks-main")
COUNT = re.compile(r"^(\d+) passed, (\d+) failed$")


def command(name, *arguments):
    return [*NODE, str(PROGRAMS / name), *arguments]


def run_checks(checks, name, seconds_max, **env):
    """Runs a judge in JavaScript, shows what it says, and adds its count to `checks`."""
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
    child = subprocess.Popen(
        ["timeout", "--kill-after=10", str(seconds_max), *command(name)],
        env=os.environ | {"CHROMIUM": browser} | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    count = None
    try:
        for line in child.stdout:
            found = COUNT.match(line.rstrip())
            if found:
                count = (int(found[1]), int(found[2]))
            else:
                print(line, end="", flush=True)
        code = child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    passed, failed = count or (0, 0)
    checks.passed += passed
    checks.failed += failed
    if count is None or (code != 0 and failed == 0):
        checks.failed += 1
        why = "was not done in time" if code == 124 else f"ended with exit code {code}"
        print(f"FAILED {name} {why}", flush=True)
