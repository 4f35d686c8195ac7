"""Judge: the chatbot's job of examples/, on a server that is killed while customers write."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import httpx

from checks import Checks, equal, true
from server import ROOT, Server, free_port

EXAMPLE = ROOT / "examples" / "chatbot"
DIALOGUES = 40
KNOWN_S = 3


def turns():
    """Dialogues of 3 texts that go on side by side, every third without consent."""
    for number in range(3):
        for dialogue in range(DIALOGUES):
            yield {
                "customer": f"customer/{dialogue % 7}",
                "dialogue": f"dialogue {dialogue}",
                "language": "gsw",
                "text": f"{number} of {dialogue}",
            }
    for dialogue in range(DIALOGUES):
        yield {"dialogue": f"dialogue {dialogue}", "consent": dialogue % 3 > 0}


def key_for_chatbot(server):
    """A key made by the command line, which a running server accepts within a second."""
    key = server.command("keys", "create", "--name", "chatbot", "--scope", "data:write")
    ends = time.monotonic() + KNOWN_S
    while httpx.get(f"{server.url}/v1/dialogues/x", headers={"X-API-Key": key}).status_code == 401:
        true(time.monotonic() < ends, f"the key is known within {KNOWN_S} s")
        time.sleep(0.05)
    return key


class Job:
    """The job with a key of its own, fed line by line."""

    def __init__(self, server, key=None):
        key = key or key_for_chatbot(server)
        self.child = subprocess.Popen(
            [sys.executable, EXAMPLE / "job.py"],
            env=os.environ | {"AUSPEX_URL": server.url, "AUSPEX_KEY": key},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def feed(self, lines):
        for turn in lines:
            self.child.stdin.write(json.dumps(turn) + "\n")
        self.child.stdin.flush()

    def end(self):
        said, errors = self.child.communicate(timeout=90)
        equal(self.child.returncode, 0, f"exit code; it said {said} {errors}")
        return said.splitlines()


def kept(server):
    headers = {"X-API-Key": server.key, "Accept": "application/x-ndjson"}
    answer = httpx.get(f"{server.url}/v1/messages", headers=headers)
    equal(answer.status_code, 200, "status of the export")
    return [json.loads(line) for line in answer.text.splitlines()]


def its_own_dialogues(_):
    """The dialogues beside it are kept and dropped as its README says"""
    with Server() as server:
        job = Job(server)
        job.feed(map(json.loads, (EXAMPLE / "dialogues.jsonl").read_text().splitlines()))
        equal(job.end(), ["2 texts kept", "2 texts dropped"], "what it says")
        equal({text["dialog_id"] for text in kept(server)}, {"d-1"}, "kept dialogues")


def failures(_):
    """What goes wrong is one line with the cause, within a few seconds"""
    dialogues = (EXAMPLE / "dialogues.jsonl").read_text()

    def said(url, key, lines=dialogues):
        done = subprocess.run(
            [sys.executable, EXAMPLE / "job.py"], env=os.environ | {"AUSPEX_URL": url, "AUSPEX_KEY": key},
            input=lines, capture_output=True, text=True, timeout=10,
        )  # fmt: skip
        equal(done.returncode, 1, f"exit code; it said {done.stdout} {done.stderr}")
        equal(len(done.stderr.splitlines()), 1, f"lines of {done.stderr}")
        return done.stderr

    away = f"http://127.0.0.1:{free_port()}"
    true(f"nothing answers at {away} (AUSPEX_URL): " in said(away, "ax_x"), "no server")
    with Server() as server:
        true("AUSPEX_KEY is empty; `auspex keys create" in said(server.url, ""), "no key")
        true("AUSPEX_KEY: 401, " in said(server.url, "ax_x"), "wrong key")
        key = key_for_chatbot(server)
        true("line 1 is neither a text nor a decision" in said(server.url, key, "{\n"), "no JSON")
        true("comes before any text of it" in said(server.url, key, '{"dialogue": "d", "consent": true}'), "no text")
        its = Job(server, key)
        its.feed(map(json.loads, dialogues.splitlines()))
        its.end()
        true("text 1 of d-1: 409, " in said(server.url, key), "a second run")


def restarts(_):
    """A server that is killed twice loses no text of a customer who agrees"""
    with Server() as server:
        job, lines = Job(server), list(turns())
        job.feed(lines[:60])
        server.kill_and_start()
        job.feed(lines[60 : 3 * DIALOGUES + 10])
        server.kill_and_start()
        job.feed(lines[3 * DIALOGUES + 10 :])
        said = job.end()
        equal(len(said), DIALOGUES, "decisions")
        found = sorted(text["text"] for text in kept(server))
        wanted = sorted(f"{number} of {dialogue}" for dialogue in range(DIALOGUES) if dialogue % 3 for number in range(3))
        equal(found, wanted, "texts that are kept")


def no_reading(_):
    """Its key reads nothing, erases nothing, and sees no text that waits"""
    with Server() as server:
        key = key_for_chatbot(server)
        with httpx.Client(base_url=server.url, headers={"X-API-Key": key}) as client:
            body = {"text": "a secret of mine", "language": "de"}
            pushed = client.post("/data/c/d", json=body)
            equal(pushed.status_code, 200, "status of a text")
            state = client.get("/v1/dialogues/d")
            equal(state.status_code, 200, "status of the dialogue")
            true("secret" not in pushed.text + state.text, "no text comes back")
            for method, path in (("GET", "/data/"), ("GET", "/v1/messages"), ("DELETE", "/v1/customers/c"),
                                 ("GET", "/v1/customers/c/export"), ("GET", "/v1/withdrawals")):  # fmt: skip
                equal(client.request(method, path).status_code, 403, f"status of {method} {path}")


if __name__ == "__main__":
    checks = Checks()
    checks.run_all([its_own_dialogues, failures, restarts, no_reading], None)
    checks.finish()
