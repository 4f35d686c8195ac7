"""Two models replaced again and again under load: no failed request, no wrong answer, flat memory.

    reload.py COUNT

`santander` stays the same but for its title, so that the load generator can check every answer; one
replacement in ten is broken first, and the last good one must serve on. `turning` is one of two
models in turn, model file and manifest, and clients make sure that no answer mixes the two. The
first replacements are left for the server to notice by itself, and there `turning` is copied slowly
and in pieces, as over a network. The others are announced.
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
from server import MODELS, ROOT, Server

NOTICED = 6  # replacements that are not announced
NOTICE_S = 20  # looks, the quiet time, and a machine under load
PIECES = 8
PIECE_S = 0.4
ROUND_S = 10
CONNECTIONS = 8
GOLDEN = ROOT / "crates" / "engine" / "tests" / "golden" / "3.2"
# Of the same shape, so that each would also load with the manifest of the other.
TURNING = ("binary-logistic.json", "dart-binary.json")
ROW = {"features": [1, 1, 1, 1, 1]}


class Package:
    """The package under `folder`, whose files are replaced as `mv` does."""

    def __init__(self, folder):
        self.folder = folder

    def _put(self, name, content):
        hidden = self.folder / ".incoming"
        hidden.write_bytes(content)
        hidden.rename(self.folder / name)


class Santander(Package):
    def __init__(self, folder):
        super().__init__(folder)
        self.manifest = (folder / "model.toml").read_text()

    def replace(self, turn):
        text, count = re.subn("(?m)^title = .*$", f'title = "Replaced {turn}"', self.manifest)
        equal(count, 1, "titles in the manifest")
        self._put("model.toml", text.encode())

    def damage(self):
        self._put("model.toml", b"title = ")


class Turning(Package):
    def __init__(self, folder):
        super().__init__(folder)
        folder.mkdir(parents=True)
        self.files = [self._files(place, name) for place, name in enumerate(TURNING)]
        self.replace(0)

    @staticmethod
    def _files(place, name):
        labels = json.dumps([f"no {place}", f"yes {place}"])
        manifest = f'title = "Turning {place}"\n[output]\nlabels = {labels}\n'
        return {"model.toml": manifest.encode(), "model.json": (GOLDEN / name).read_bytes()}

    def replace(self, turn):
        for name, content in self.files[turn % 2].items():
            self._put(name, content)

    def copy_slowly(self, turn):
        """One file after the other in pieces: in place as `cp` does, or by a hidden name as `rsync` does."""
        for name, content in self.files[turn % 2].items():
            target = self.folder / (name if turn // 2 % 2 else f".{name}.x7Hq2")
            size = -(-len(content) // PIECES)
            with open(target, "wb", buffering=0) as file:
                for begin in range(0, len(content), size):
                    file.write(content[begin : begin + size])
                    time.sleep(PIECE_S)
            target.rename(self.folder / name)


def ask(server, method, path, body=None):
    headers = {"X-API-Key": server.key, "Content-Type": "application/json"}
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}{path}", content, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def turning(server):
    """What tells one of the two models from the other: labels by the manifest, numbers by the model."""
    answer = ask(server, "POST", "/v1/models/turning/predict", ROW)
    return (*answer["labels"], *answer["probabilities"])


def replaced(server):
    return [(name["model"], name["version"]) for name in ask(server, "POST", "/v1/models/reload")["replaced"]]


def notice(server, model, title):
    ends = time.monotonic() + NOTICE_S
    while ask(server, "GET", f"/v1/models/{model}")["title"] != title:
        true(time.monotonic() < ends, f"{title} was not noticed within {NOTICE_S} s")
        time.sleep(0.1)


def replace_noticed(server, santander, turning):
    for turn in range(NOTICED):
        santander.replace(turn)
        turning.copy_slowly(turn + 1)
        notice(server, "santander", f"Replaced {turn}")
        notice(server, "turning", f"Turning {(turn + 1) % 2}")


def replace_announced(server, santander, turning, count):
    for turn in range(count):
        if turn % 10 == 9:
            santander.damage()
            failed = ask(server, "POST", "/v1/models/reload")["failed"]
            equal([name["model"] for name in failed], ["santander"], "failed packages")
        santander.replace(turn)
        turning.replace(turn + 1)
        equal(replaced(server), [("santander", "1"), ("turning", "1")], "replaced packages")
        if turn % 100 == 99:
            print(f"{turn + 1:6d} replaced  {server.rss_mb():7.1f} MB", flush=True)


def learn(server, package):
    """The answers of the two models; ends with the first of them in place."""
    answers = []
    for turn in (1, 2):
        package.replace(turn)
        equal(replaced(server), [("turning", "1")], "replaced packages")
        answers.append(turning(server))
    true(len(set(answers[0]) & set(answers[1])) == 0, "the two models cannot be told apart")
    return set(answers)


def main():
    count = int(sys.argv[1])
    checks = Checks()
    reports, seen, done = [], [], threading.Event()
    with tempfile.TemporaryDirectory(prefix="auspex-models-") as folder:
        models = Path(folder)
        shutil.copytree(MODELS, models, dirs_exist_ok=True)
        santander, package = Santander(models / "santander" / "1"), Turning(models / "turning" / "1")
        with Server(models=models, AUSPEX__SERVER__RATE_LIMIT__MAX="1000000000") as server:
            answers = learn(server, package)

            def load():
                while not done.is_set():
                    reports.append(predictions(server, ROUND_S, f"X-API-Key: {server.key}", CONNECTIONS))

            def look_on():
                while not done.is_set():
                    try:
                        seen.append(turning(server))
                    except OSError as error:
                        seen.append(repr(error))
                    time.sleep(0.005)

            threads = [threading.Thread(target=work) for work in (load, look_on)]
            for thread in threads:
                thread.start()
            begin = time.monotonic()
            try:
                name = f"slow copies were noticed when they were complete, {NOTICED} times"
                checks.run(name, replace_noticed, server, santander, package)
                with Memory(server) as memory:
                    name = f"both models were replaced {count} times"
                    checks.run(name, replace_announced, server, santander, package, count)
            finally:
                done.set()
                for thread in threads:
                    thread.join()
            took = time.monotonic() - begin
            predicted = sum(report["requests"] for _, report in reports) + len(seen)
            print(f"       {took:.0f} s, {predicted} predictions meanwhile")
            checks.run("every answer was right", equal, [code for code, _ in reports], [0] * len(reports), "exit codes")
            checks.run("no answer mixed two models", equal, sorted(set(seen), key=repr), sorted(answers, key=repr))
            checks.run("memory did not grow", memory.check)
    checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
    checks.finish()


main()
