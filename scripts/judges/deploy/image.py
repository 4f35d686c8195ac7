"""What a container of the image sees, without Docker: the image's files as a read-only root, its user, its command.

The Dockerfile says which user, variables, folder and commands those are, and `deploy/image-root`, which the
Dockerfile runs too, makes the root.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from server import BINARY, MODELS, ROOT

# Runs in a mount namespace of its own, so that nothing of it is left behind.
ENTER = """
import ctypes, json, os, subprocess, sys
root, data, user, folder, variables, *command = sys.argv[1:]
for options in (["--bind", root, root], ["--bind", data, root + "/data"], ["-o", "remount,bind,ro", root]):
    subprocess.run(["mount", *options], check=True)
os.chroot(root)
os.chdir(folder)
user, group = map(int, user.split(":"))
os.setgroups([]), os.setgid(group), os.setuid(user)
NO_NEW_PRIVILEGES = 38
if ctypes.CDLL(None).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0):
    sys.exit("prctl failed")
os.execve(command[0], command, json.loads(variables))
"""


def instructions(text):
    """The instructions of the last stage of a Dockerfile as (name, rest), and those of all stages."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n?", "", text))
    found = [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]
    last = max(place for place, (name, _) in enumerate(found) if name == "FROM")
    return found[last:], found


class Image:
    """`with Image() as image:` the unpacked image. To enter it takes root."""

    def __init__(self):
        last, _ = instructions((ROOT / "Dockerfile").read_text())
        said = dict(last)
        self.user = said["USER"].strip()
        self.variables = dict(pair.split("=", 1) for name, rest in last if name == "ENV" for pair in rest.split())
        self.command = json.loads(said["ENTRYPOINT"]) + json.loads(said["CMD"])
        self.working_folder = said["WORKDIR"].strip()
        self.health = json.loads(said["HEALTHCHECK"].split("CMD", 1)[1])

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="auspex-image-"))
        self.root = self.folder / "root"
        self.data = self.folder / "volume"
        subprocess.run([ROOT / "deploy/image-root", BINARY, MODELS, self.root], check=True, cwd=ROOT)
        self.data.mkdir(mode=0o700)
        os.chown(self.data, *map(int, self.user.split(":")))
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder)

    def start(self, *command, **variables):
        """Starts a command in the image; the process is that of the command itself."""
        shown = json.dumps(self.variables | variables)
        inside = [sys.executable, "-c", ENTER, self.root, self.data, self.user, self.working_folder, shown, *command]
        return subprocess.Popen(
            ["unshare", "--mount", *inside],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
