"""Texts are kept only with consent, whatever happens: none lost, none leaked, none left behind.

    dialogues.py [--small] [--rounds COUNT] [--dialogues COUNT] [SCENARIO...]

Writers push texts and decide, and keep a model of what they were told. In the end exactly the texts with
consent can be read, each once and in order. Every text has a canary of its own; what was refused,
withdrawn, expired or erased is searched for in every file below the data folder and in the log, and so
are the encrypted text and the wrapped key that stood there before.

    concurrent    COUNT dialogues (100,000) of 5 to 20 texts from 64 writers: repeated and late texts,
                  decisions at the same instant, withdrawals
    canary        refusal, withdrawal, erasure and expiry, one after the other, among other texts
    kill          kill -9, COUNT times (200), while all of this goes on
    backup        an old copy of the database comes back after customers were erased

`--small` takes two minutes.
"""

import argparse
import collections
import http.client
import json
import multiprocessing
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from server import Server

ANSWER_S = 30
SETTLED_S = 15
PATTERN_BYTES = 24
WRITERS = 64
PROCESSES = 4
LANGUAGES = ("de", "en", "pt-BR", "gsw")
WORDS = "my order has not come and the bill names an address that is not mine".split()


class Api:
    """One connection to the server, made anew after every failure."""

    def __init__(self, port, key):
        self.port, self.key, self.connection = port, key, None

    def ask(self, method, path, body=None, **headers):
        """Status and JSON of an answer; 0 without an answer."""
        headers = {"X-API-Key": self.key, "Content-Type": "application/json"} | headers
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            if self.connection is not None:
                self.connection.close()
            self.connection = None
            return 0, None
        kind = answer.headers.get_content_type()
        return answer.status, json.loads(text) if text and kind == "application/json" else text

    def push(self, customer, dialogue, text, key=None):
        body = json.dumps({"text": text, "language": LANGUAGES[len(text) % len(LANGUAGES)]})
        headers = {"Idempotency-Key": key} if key else {}
        return self.ask("POST", f"/data/{quote(customer, safe='')}/{quote(dialogue, safe='')}", body, **headers)[0]

    def decide(self, dialogue, consent):
        """Status, and how many texts were kept or dropped."""
        status, answer = self.ask("POST", f"/consents/{quote(dialogue, safe='')}", json.dumps(consent))
        return status, answer["texts"] if status == 200 else None

    def erase(self, customer):
        return self.ask("DELETE", f"/v1/customers/{quote(customer, safe='')}")

    def readable(self):
        """{dialogue: its texts in the order of receipt}, of everything that can be read."""
        status, lines = self.ask("GET", "/v1/messages", Accept="application/x-ndjson")
        equal(status, 200, "status of the export")
        found = collections.defaultdict(list)
        for line in lines.splitlines():
            message = json.loads(line)
            found[message["dialog_id"]].append(message["text"])
        return {dialogue: texts[::-1] for dialogue, texts in found.items()}


def canary():
    return f"canary{random.getrandbits(96):024x}"


def some_text(mark):
    return f"{' '.join(random.choices(WORDS, k=random.randint(0, 12)))} {mark}"


# --- concurrent


class Dialogue:
    """A dialogue and what has to become of it."""

    def __init__(self, name):
        self.name, self.customer = name, f"customer/{random.randrange(5_000)} ü"
        self.texts = []
        self.is_kept = False


def live(api, rival, dialogue):
    """One dialogue from its first text to its decision. Returns what is wrong, if anything."""
    push = lambda text, key=None: api.push(dialogue.customer, dialogue.name, text, key)
    for number in range(random.randint(5, 20)):
        text = some_text(f"{dialogue.name} {number}")
        key = f"{dialogue.name}-{number}".replace(" ", "-") if random.random() < 0.2 else None
        status = push(text, key)
        if status != 200:
            return f"a text: {status}"
        dialogue.texts.append(text)
        if key and random.random() < 0.5:
            status = push(text, key)
            if status != 200:
                return f"a repeated text: {status}"
    fate = random.random()
    wrong = None
    if fate < 0.1:  # nobody decides
        return None
    if fate < 0.2:
        wrong = opposed(api, rival, dialogue)
    elif fate < 0.3:
        wrong = beside_a_text(api, rival, dialogue)
    elif fate < 0.5:
        wrong = decided(api, dialogue, False, len(dialogue.texts))
    else:
        wrong = decided(api, dialogue, True, len(dialogue.texts))
        dialogue.is_kept = True
        if fate < 0.6:
            wrong = wrong or decided(api, dialogue, False, len(dialogue.texts))
            dialogue.is_kept = False
        elif fate < 0.7:
            wrong = wrong or decided(api, dialogue, True, len(dialogue.texts))
    if not wrong and random.random() < 0.3:
        status = push("too late")
        wrong = None if status == 409 else f"a late text: {status}"
    return wrong


def decided(api, dialogue, consent, count):
    status, texts = api.decide(dialogue.name, consent)
    return None if (status, texts) == (200, count) else f"{consent}: {status}, {texts} instead of {count} texts"


def together(rival, first, second):
    """Both at once, the second on a thread of its own."""
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(second(rival)))
    thread.start()
    mine = first()
    thread.join()
    return mine, outcome[0]


def opposed(api, rival, dialogue):
    """Yes and no at the same instant: the no holds in any order."""
    yes, no = together(
        rival,
        lambda: api.decide(dialogue.name, True)[0],
        lambda other: other.decide(dialogue.name, False)[0],
    )
    if (yes, no) in ((200, 200), (409, 200)):
        return None
    if (yes, no) == (200, 409):  # it met the yes halfway
        return decided(api, dialogue, False, len(dialogue.texts))
    return f"yes and no at once: {yes} and {no}"


def beside_a_text(api, rival, dialogue):
    """A yes and a text at the same instant: it is kept if it was accepted."""
    text = some_text(f"{dialogue.name} last")
    (status, count), pushed = together(
        rival,
        lambda: api.decide(dialogue.name, True),
        lambda other: other.push(dialogue.customer, dialogue.name, text),
    )
    if pushed == 200:
        dialogue.texts.append(text)
    dialogue.is_kept = True
    is_right = status == 200 and count == len(dialogue.texts) and pushed in (200, 409)
    return None if is_right else f"a yes beside a text: {status}, {count} texts; the text {pushed}"


def write(port, key, seed, names, results):
    """A process of writers; puts its model and what went wrong into `results`."""
    random.seed(seed)
    lock, model, wrong = threading.Lock(), {}, collections.Counter()
    waiting = iter(names)

    def writer():
        api, rival = Api(port, key), Api(port, key)
        while True:
            with lock:
                name = next(waiting, None)
            if name is None:
                return
            dialogue = Dialogue(name)
            fault = live(api, rival, dialogue)
            with lock:
                model[name] = dialogue.texts if dialogue.is_kept else None
                if fault:
                    wrong[fault] += 1

    threads = [threading.Thread(target=writer) for _ in range(WRITERS // PROCESSES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put((model, wrong))


def concurrent(wanted):
    """many writers at once, and a model of every dialogue"""
    model, wrong = {}, collections.Counter()
    with Server(AUSPEX__SERVER__RATE_LIMIT__MAX="1000000000") as server:
        results = multiprocessing.Queue()
        names = [f"dialogue {number}" for number in range(wanted.dialogues)]
        parts = [names[part::PROCESSES] for part in range(PROCESSES)]
        began = time.monotonic()
        workers = [
            multiprocessing.Process(target=write, args=(server.port, server.key, random.random(), part, results))
            for part in parts
        ]
        for worker in workers:
            worker.start()
        for _ in workers:
            of_one, its_wrong = results.get()
            model |= of_one
            wrong += its_wrong
        for worker in workers:
            worker.join()
        took_s = time.monotonic() - began
        found = Api(server.port, server.key).readable()
        equal(dict(wrong), {}, "answers that are wrong")
        kept = {name: texts for name, texts in model.items() if texts}
        differing = [name for name in kept.keys() | found.keys() if kept.get(name) != found.get(name)]
        for name in differing[:3]:
            print(f"       {name}: {found.get(name)} instead of {kept.get(name)}")
        equal(len(differing), 0, "dialogues that differ from the model")
        texts = sum(map(len, kept.values()))
        print(f"       {len(model):,} dialogues in {took_s:.0f} s; {len(kept):,} with {texts:,} texts are readable")
        # The same after an end and a start, when nothing is left of what nobody decided.
        server.kill_and_start()
        equal(len(Api(server.port, server.key).readable()), len(kept), "readable dialogues after a kill")


# --- what stands in files


def cells(file, statement, *values):
    """Blobs of a database that a running server uses; the connection is gone at once."""
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=ANSWER_S)
    try:
        return [cell for (cell,) in connection.execute(statement, values)]
    finally:
        connection.close()


def encrypted(server, dialogue_texts=None):
    """All encrypted texts and all wrapped keys that are stored now."""
    texts = cells(server.data / "auspex.db", "SELECT sealed FROM dialogues_sealed WHERE is_erased = 0")
    return set(texts) | set(wrapped_keys(server))


def wrapped_keys(server):
    return cells(server.data / "keys.db", "SELECT wrapped FROM dialogues_keys")


def remains(server, marks):
    """Names of the files below the data folder, or the log, in which any of these bytes stand."""
    files = [path for path in server.data.rglob("*") if path.is_file()] + [server.folder / "log"]
    with tempfile.NamedTemporaryFile() as patterns:
        patterns.write(b"\n".join({telling(mark) for mark in marks}))
        patterns.flush()
        # One pass over each file, however many marks there are.
        found = subprocess.run(
            ["grep", "--files-with-matches", "--text", "--fixed-strings", f"--file={patterns.name}", *files],
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    # A file may go while it is looked for: 2 then, with the names of those that were read.
    return sorted(Path(name).name for name in found.stdout.splitlines())


def telling(mark):
    """A part of it that is unique and that grep takes as one line."""
    parts = [part for line in bytes(mark).split(b"\n") for part in line.split(b"\0")]
    return max(parts, key=len)[:PATTERN_BYTES]


def is_gone(server, marks, what):
    """Within seconds nothing of it is left. A file that is being read may delay the end of its log."""
    ends = time.monotonic() + SETTLED_S
    while found := remains(server, marks):
        true(time.monotonic() < ends, f"{what} is gone from {found}")
        time.sleep(0.2)


class Speaker:
    """Dialogues, one after the other, with canaries."""

    def __init__(self, server):
        self.server, self.api = server, Api(server.port, server.key)

    def talk(self, customer=None, count=5):
        customer, dialogue = customer or f"c-{canary()}", f"d-{canary()}"
        marks = [canary() for _ in range(count)]
        for mark in marks:
            equal(self.api.push(customer, dialogue, some_text(mark)), 200, "status of a text")
        return customer, dialogue, [mark.encode() for mark in marks]

    def agree(self, **kwargs):
        """A dialogue with a yes; also its encrypted texts."""
        before = encrypted(self.server)
        customer, dialogue, marks = self.talk(**kwargs)
        equal(self.api.decide(dialogue, True), (200, len(marks)), "a yes")
        return customer, dialogue, marks, encrypted(self.server) - before


def names_of(*names):
    return [name.encode() for name in names]


def canary_goes(wanted):
    """canaries of refusals, withdrawals, erasures and expired dialogues"""
    with Server(AUSPEX__DIALOGUES__PENDING__EXPIRES_AFTER_S="5") as server:
        speaker = Speaker(server)
        api = speaker.api
        customer, dialogue, marks, ciphers = speaker.agree()
        true(remains(server, list(ciphers)), "the search finds what is stored")
        equal(remains(server, marks), [], "files with a text in the clear")
        equal(remains(server, names_of(customer, dialogue)), [], "files with names in the clear")
        for _ in range(wanted.neighbours):
            api.decide(speaker.talk(count=8)[1], True)

        _, dialogue, marks = speaker.talk()
        equal(api.decide(dialogue, False), (200, 5), "a refusal")
        is_gone(server, marks + names_of(dialogue), "a refused text")

        customer, dialogue, marks, ciphers = speaker.agree()
        stays = encrypted(server) - ciphers
        equal(api.decide(dialogue, False), (200, 5), "a withdrawal")
        is_gone(server, marks + names_of(dialogue), "a withdrawn text")
        is_gone(server, [cipher for cipher in ciphers if cipher not in wrapped_keys(server)], "its encrypted text")
        true(stays <= encrypted(server), "the others stay")

        erased, ciphers = [], set()
        for _ in range(wanted.neighbours // 10 + 2):
            customer, dialogue, marks, its = speaker.agree(count=20)
            _, second, more, its_more = speaker.agree(customer=customer)
            erased.append((customer, [dialogue, second], marks + more))
            ciphers |= its | its_more
        for customer, dialogues, _ in erased:
            status, receipt = api.erase(customer)
            equal(status, 200, "status of an erasure")
            equal(receipt["texts"], 25, "erased texts")
        for customer, dialogues, marks in erased:
            is_gone(server, marks + names_of(customer, *dialogues), "an erased text")
            equal(api.decide(dialogues[0], True)[0], 404, "a yes after the erasure")
        is_gone(server, list(ciphers), "the encrypted text or the wrapped key of the erased")

        _, dialogue, marks = speaker.talk()
        time.sleep(7)
        equal(api.ask("GET", f"/v1/dialogues/{dialogue}")[0], 404, "status of an expired dialogue")
        equal(api.decide(dialogue, True)[0], 404, "a yes that is too late")
        is_gone(server, marks, "an expired text")
        readable = api.readable()
        true(all(name not in readable for _, dialogues, _ in erased for name in dialogues), "nothing comes back")


# --- kill


class Victim(threading.Thread):
    """Dialogues with all their fates, while the server is killed again and again."""

    def __init__(self, server, ends):
        super().__init__(daemon=True)
        self.server, self.ends = server, ends
        self.kept, self.unsure, self.gone = {}, {}, []
        self.wrong, self.counts = collections.Counter(), collections.Counter()

    def run(self):
        self.api = Api(self.server.port, self.server.key)
        while not self.ends.is_set():
            if not self._live():
                time.sleep(0.02)

    def _live(self):
        """False when the server went away in the middle."""
        customer, dialogue = f"c-{canary()}", f"d-{canary()}"
        texts = [some_text(canary()) for _ in range(random.randint(1, 8))]
        for text in texts:
            status = self.api.push(customer, dialogue, text)
            if status != 200:
                self._note("text", status)
                return status != 0
        fate = random.random()
        if fate < 0.2:
            return self._end(dialogue, texts, "refuse", self.api.decide(dialogue, False)[0])
        status, count = self.api.decide(dialogue, True)
        self._note("agree", status)
        if status != 200:
            self.unsure[dialogue] = texts
            return status != 0
        if count != len(texts):
            self.wrong[f"{count} of {len(texts)} texts"] += 1
        self.kept[dialogue] = texts
        if fate < 0.4:
            del self.kept[dialogue]
            return self._end(dialogue, texts, "withdraw", self.api.decide(dialogue, False)[0])
        if fate < 0.6:
            del self.kept[dialogue]
            return self._end(dialogue, texts, "erase", self.api.erase(customer)[0])
        return True

    def _end(self, dialogue, texts, what, status):
        self._note(what, status)
        if status == 200:
            self.gone.append((dialogue, texts))
        else:
            self.unsure[dialogue] = texts
        return status != 0

    def _note(self, what, status):
        self.counts[f"{what} {status}"] += 1
        # After a start the server knows no dialogue that nobody had decided.
        allowed = (0, 200, 503) if what == "text" else (0, 200, 404, 503)
        if status not in allowed:
            self.wrong[f"{what}: {status}"] += 1


def kill(wanted):
    """kill -9 amid texts, consents, withdrawals and erasures"""
    ends = threading.Event()
    with Server() as server:
        victims = [Victim(server, ends) for _ in range(6)]
        for victim in victims:
            victim.start()
        stood = set()
        for _ in range(wanted.rounds):
            time.sleep(random.uniform(0.1, 0.6))
            if random.random() < 0.5:
                stood |= encrypted(server)
            server.kill_and_start()
        time.sleep(1)
        ends.set()
        for victim in victims:
            victim.join(2 * ANSWER_S)
            true(not victim.is_alive(), "a writer ends")
        wrong = sum((victim.wrong for victim in victims), collections.Counter())
        counts = sum((victim.counts for victim in victims), collections.Counter())
        print(f"       {dict(sorted(counts.items()))}")
        equal(dict(wrong), {}, "answers that are wrong")
        agree(server, victims)
        server.kill_and_start()
        gone = agree(server, victims)
        true(counts["agree 200"] > 5 * len(victims) and counts["erase 200"] > 5, "something was done")
        is_gone(server, gone, "a text that was refused, withdrawn or erased")
        left = encrypted(server)
        is_gone(server, [cell for cell in stood if cell not in left], "what was encrypted and has gone")


def agree(server, victims):
    """What can be read is what the writers know. Returns the canaries of what has gone."""
    found, gone = Api(server.port, server.key).readable(), []
    for victim in victims:
        for dialogue, texts in victim.kept.items():
            equal(found.pop(dialogue, None), texts, "texts of an acknowledged yes")
        for dialogue, texts in victim.unsure.items():
            true(found.pop(dialogue, texts) == texts, "all texts or none of a yes that was not answered")
        for dialogue, texts in victim.gone:
            true(dialogue not in found, "nothing of what has gone is readable")
            gone += [text.split()[-1].encode() for text in texts]
    equal(list(found), [], "dialogues that nobody knows")
    return gone


# --- backup


def backup(wanted):
    """an old copy of the database comes back after erasures"""
    with Server() as server:
        speaker = Speaker(server)
        erased = [speaker.agree() for _ in range(10)]
        kept = [speaker.agree() for _ in range(10)]
        server.kill()
        copy = server.folder / "copy"
        copy.mkdir()
        for path in server.data.glob("auspex.db*"):
            shutil.copy(path, copy)
        server.start_again()
        speaker.api.connection = None
        for customer, *_ in erased:
            equal(speaker.api.erase(customer)[0], 200, "status of an erasure")
        # They come back, which is their right.
        again = speaker.agree(customer=erased[0][0])
        server.kill()
        for path in server.data.glob("auspex.db*"):
            path.unlink()
        for path in copy.iterdir():
            shutil.copy(path, server.data)
        shutil.rmtree(copy)
        server.start_again()
        speaker.api.connection = None
        readable = speaker.api.readable()
        for _, dialogue, marks, _ in kept:
            equal([text.split()[-1].encode() for text in readable[dialogue]], marks, "texts of the others")
        true(all(dialogue not in readable for _, dialogue, *_ in erased), "nothing of the erased is readable")
        true(again[1] not in readable, "what the copy does not have is not there")
        ciphers = [cipher for *_, its in erased for cipher in its]
        is_gone(server, ciphers, "what was encrypted of the erased")


SCENARIOS = {"concurrent": concurrent, "canary": canary_goes, "kill": kill, "backup": backup}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--dialogues", type=int)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", choices=[[], *SCENARIOS])
    wanted = parser.parse_args()
    wanted.rounds = wanted.rounds or (20 if wanted.small else 200)
    wanted.dialogues = wanted.dialogues or (1_000 if wanted.small else 100_000)
    wanted.neighbours = 50 if wanted.small else 500
    checks = Checks()
    for name in wanted.scenarios or SCENARIOS:
        scenario = SCENARIOS[name]
        checks.run(f"{name}: {scenario.__doc__}", scenario, wanted)
    checks.finish()


if __name__ == "__main__":
    main()
