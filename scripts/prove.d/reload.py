"""A model replaced again and again under load: no failed request, no wrong answer, flat memory.

    reload.py COUNT

The package is the same each time but for its title, so that the load generator can check every
answer. The first replacements are left for the server to notice by itself, the others are announced;
one in ten is broken first, and the last good one must serve on.
"""

import json
import re
import shutil
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from load import predictions
from memory import Memory
from server import MODELS, Server

NOTICED = 5  # replacements that are not announced
NOTICE_S = 10  # two looks, and a machine under load
ROUND_S = 10
CONNECTIONS = 8


class Package:
    """The package under `folder`, whose files are replaced as `mv` does."""

    def __init__(self, folder):
        self.folder = folder
        self.manifest = (folder / "model.toml").read_text()

    def _put(self, name, content):
        hidden = self.folder / ".incoming"
        hidden.write_bytes(content)
        hidden.rename(self.folder / name)

    def replace(self, turn):
        text, count = re.subn("(?m)^title = .*$", f'title = "Replaced {turn}"', self.manifest)
        equal(count, 1, "titles in the manifest")
        self._put("model.toml", text.encode())

    def damage(self):
        self._put("model.toml", b"title = ")


def ask(server, method, path):
    request = urllib.request.Request(f"{server.url}{path}", method=method, headers={"X-API-Key": server.key})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def replaced(server):
    return [(name["model"], name["version"]) for name in ask(server, "POST", "/v1/models/reload")["replaced"]]


def notice(server, title):
    ends = time.monotonic() + NOTICE_S
    while ask(server, "GET", "/v1/models/santander")["title"] != title:
        true(time.monotonic() < ends, f"{title} was not noticed within {NOTICE_S} s")
        time.sleep(0.1)


def replace_all(server, package, count):
    for turn in range(count):
        if turn % 10 == 9:
            package.damage()
            failed = ask(server, "POST", "/v1/models/reload")["failed"]
            equal([name["model"] for name in failed], ["santander"], "failed packages")
        package.replace(turn)
        if turn < NOTICED:
            notice(server, f"Replaced {turn}")
        else:
            equal(replaced(server), [("santander", "1")], "replaced packages")
        if turn % 100 == 99:
            print(f"{turn + 1:6d} replaced  {server.rss_mb():7.1f} MB", flush=True)


def main():
    count = int(sys.argv[1])
    checks = Checks()
    reports, done = [], threading.Event()
    with tempfile.TemporaryDirectory(prefix="auspex-models-") as folder:
        models = Path(folder)
        shutil.copytree(MODELS, models, dirs_exist_ok=True)
        package = Package(models / "santander" / "1")
        with Server(models=models, AUSPEX__SERVER__RATE_LIMIT__MAX="1000000000") as server:

            def load():
                while not done.is_set():
                    reports.append(predictions(server, ROUND_S, f"X-API-Key: {server.key}", CONNECTIONS))

            loading = threading.Thread(target=load)
            loading.start()
            begin = time.monotonic()
            try:
                with Memory(server) as memory:
                    checks.run(f"the model was replaced {count} times", replace_all, server, package, count)
            finally:
                done.set()
                loading.join()
            took = time.monotonic() - begin
            predicted = sum(report["requests"] for _, report in reports)
            print(f"       {took:.0f} s, {predicted} predictions meanwhile")
            checks.run("every answer was right", equal, [code for code, _ in reports], [0] * len(reports), "exit codes")
            checks.run("memory did not grow", memory.check)
    checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
    checks.finish()


main()
