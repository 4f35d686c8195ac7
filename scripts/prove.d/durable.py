"""What was acknowledged is stored, whatever fails: no change lost, none undone, none made twice.

    durable.py [--small] [--rounds COUNT] [--seconds SECONDS] [SCENARIO...]

Clients make and revoke API keys while something is done to the server or its database, and keep a
model of what they were told: 201 and 204 count, 503 and no answer mean that either may be. In the end
the server is killed, started again, and has to agree with the model. All the while predictions are
answered, and no answer is another 5xx than 503 or comes later than the deadlines of two calls.

    kill          kill -9, COUNT times (60); on SQLite and on PostgreSQL
    full          a file system of a few MB is filled and emptied while keys are made
    full-quiet    it is filled for SECONDS (90) while there are only predictions
    refused       files may not grow any more
    power         the file system goes down without writing out what it holds in memory, COUNT / 2 times (30)
    terminated    PostgreSQL ends the server's sessions
    blocked       somebody locks the table for ten seconds and longer
    silent        a proxy drops what the connections carry, and keeps them open

PostgreSQL is the one that AUSPEX_TEST_POSTGRES_URL names. `full` and `full-quiet` mount a tmpfs and
`power` an ext4 on a loop device, for which they have to run as root. `--small` takes two minutes, and
leaves out what cannot be done here.
"""

import argparse
import collections
import fcntl
import http.client
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from proxy import Proxy
from server import RECORDS, Server

CLIENTS = 6
JOB_ROWS = 100
CHUNKED = {"AUSPEX__JOBS__CHUNK_ROWS_MAX": "10", "AUSPEX__JOBS__LEASE_S": "1"}
CALL_TIMEOUT_S = 5
ANSWERED_S = 2 * CALL_TIMEOUT_S + 3  # a change and bringing it into force, on a machine under load
RECOVERY_S = 15
ANSWER_S = 30
HEALTH_S = 8  # `/health` writes every five seconds
TMPFS_MB = 160
EXT4_MB = 160
EXT4_IOC_SHUTDOWN = 0x8004587D  # fs/ext4/ext4.h
NO_LOG_FLUSH = 2
POSTGRES = os.environ.get("AUSPEX_TEST_POSTGRES_URL")
ON, FAILING, OFF = range(3)
RECORD = (RECORDS / "records.jsonl").read_text().splitlines()[0]


class Asking:
    """One connection to the server, made anew after every failure."""

    def __init__(self, server):
        self.server = server
        self.connection = None

    def ask(self, method, path, body=None):
        """Status and JSON of an answer; 0 without an answer."""
        headers = {"X-API-Key": self.server.key, "Content-Type": "application/json"}
        try:
            if self.connection is None:
                port = self.server.port
                self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
            self.connection.request(method, path, body and json.dumps(body), headers)
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            if self.connection is not None:
                self.connection.close()
            self.connection = None
            return 0, None
        if answer.status == 503 and path != "/health" and answer.headers["Retry-After"] is None:
            return 599, {"error": "503 without Retry-After"}
        return answer.status, json.loads(text) if text else None


class Model:
    """What the clients know: the states in which each key may be, by its name."""

    def __init__(self):
        self.states = {}
        self.power, self.cuts = ON, 0
        self.counts = collections.Counter()
        self.wrong = []
        self.slowest_s = 0

    def compare(self, keys):
        """What the server says that the clients know better, as texts."""
        found = collections.defaultdict(list)
        for key in keys:
            found[key["name"]].append(key["state"])
        faults = collections.Counter()
        for name, states in self.states.items():
            has = found.pop(name, ["none"])
            if len(has) > 1:
                faults["doubled"] += 1
            elif has[0] not in states:
                faults["resurrected" if "active" in has else "lost"] += 1
        found.pop("admin", None)
        faults["unknown"] += len(found)
        return {kind: count for kind, count in faults.items() if count}


class Clients:
    """Threads that change keys, predict and, where they are to, submit jobs until they are stopped."""

    def __init__(self, server, model, changing=CLIENTS, may_stop=False, submits=False):
        self.server, self.model, self.may_stop = server, model, may_stop
        self.jobs = {}  # those that were taken, and whether they were seen to have succeeded
        self.lock = threading.Lock()
        self.ends = threading.Event()
        self.predictions = 0
        targets = [self._change] * changing + [self._predict] + [self._submit] * submits
        self.threads = [threading.Thread(target=target, daemon=True) for target in targets]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        for thread in self.threads:
            thread.join(2 * ANSWER_S)
            true(not thread.is_alive(), "a client ends")

    def _note(self, kind, status, began):
        with self.lock:
            model = self.model
            model.counts[f"{kind} {status}"] += 1
            model.slowest_s = max(model.slowest_s, time.monotonic() - began)
            if status not in (200, 201, 204, 503) and not (status == 0 and self.may_stop):
                model.wrong.append(f"{kind}: {status}")

    def _ask(self, asking, *request):
        """An answer that comes when the power has begun to fail is none: it would not have come."""
        power, cuts = self.model.power, self.model.cuts
        status, answer = asking.ask(*request)
        if power == ON and self.model.cuts == cuts:
            return status, answer
        if power == OFF and status in (201, 202, 204):
            self.model.wrong.append("acknowledged by a dead disk")
        return 0, None

    def _change(self):
        asking, mine = Asking(self.server), {}
        while not self.ends.is_set():
            began = time.monotonic()
            if mine and random.random() < 0.4:
                name, key = mine.popitem()
                with self.lock:
                    self.model.states[name] = {"active", "revoked"}
                status, _ = self._ask(asking, "DELETE", f"/v1/api-keys/{key}")
                if status == 204:
                    self.model.states[name] = {"revoked"}
                self._note("revoke", status, began)
            else:
                name = f"key-{random.getrandbits(80):020x}"
                with self.lock:
                    self.model.states[name] = {"active", "none"}
                body = {"name": name, "scopes": ["predict"]}
                status, answer = self._ask(asking, "POST", "/v1/api-keys", body)
                if status == 201:
                    self.model.states[name] = {"active"}
                    mine[name] = answer["id"]
                self._note("make", status, began)
            if status in (0, 503):
                time.sleep(0.05)

    def _predict(self):
        asking, record = Asking(self.server), json.loads(RECORD)
        while not self.ends.is_set():
            began = time.monotonic()
            status, _ = asking.ask("POST", "/predict", record)
            self.predictions += status == 200
            if status != 200:
                self._note("predict", 599 if status == 503 else status, began)
            time.sleep(0.005)

    def _submit(self):
        asking, records = Asking(self.server), [json.loads(RECORD)] * JOB_ROWS
        while not self.ends.is_set():
            status, answer = self._ask(asking, "POST", "/v1/jobs", {"records": records})
            if status == 202:
                self.jobs[answer["id"]] = False
            for job in list(self.jobs)[-3:]:
                status, answer = self._ask(asking, "GET", f"/v1/jobs/{job}")
                self.jobs[job] |= status == 200 and answer["status"] == "succeeded"
            time.sleep(0.02)


def keys(server):
    path, found, asking = "/v1/api-keys?limit=1000", [], Asking(server)
    while path:
        status, answer = asking.ask("GET", path)
        equal(status, 200, "status of the list of keys")
        found += answer["data"]
        path = answer["pagination"]["links"].get("next")
    return found


def eventually(what, holds, limit_s=RECOVERY_S):
    ends = time.monotonic() + limit_s
    while not holds():
        true(time.monotonic() < ends, f"within {limit_s} s: {what}")
        time.sleep(0.1)


def health(server):
    return Asking(server).ask("GET", "/health")[1]


def agrees(server, model, clients, settle=True):
    """The server takes changes again, is killed, and knows all that it acknowledged."""
    if settle:
        eventually("it is healthy", lambda: health(server)["status"] == "healthy")
        body = {"name": "admin", "scopes": ["predict"]}
        # PostgreSQL may still end sessions that fell silent with the lock of changes.
        eventually("a key after all", lambda: Asking(server).ask("POST", "/v1/api-keys", body)[0] == 201)
    before = model.compare(keys(server))
    server.kill_and_start()
    after = model.compare(keys(server))
    counts = " ".join(f"{kind}: {count}," for kind, count in sorted(model.counts.items()))
    print(f"       {counts} predictions: {clients.predictions}, slowest: {model.slowest_s:.1f} s")
    equal(before, {}, "faults while it ran")
    equal(after, {}, "faults after it was killed")
    equal(collections.Counter(model.wrong), {}, "answers that are wrong")
    true(model.slowest_s < ANSWERED_S, f"no answer takes {model.slowest_s:.1f} s")
    true(model.counts["make 201"] >= 10 and clients.predictions > 50, "something was done")


# --- databases


class Sqlite:
    name = "SQLite"
    settings = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Postgres:
    """A schema of its own, reached through a proxy that can fall silent."""

    name = "PostgreSQL"

    def __enter__(self):
        self.schema = f"durable_{os.getpid()}_{random.getrandbits(32)}"
        self.sql(f"CREATE SCHEMA {self.schema}")
        url = urlsplit(POSTGRES)
        self.proxy = Proxy(url.hostname, url.port or 5432)
        user = url.netloc.rpartition("@")[0] or "postgres"
        through = url._replace(netloc=f"{user}@127.0.0.1:{self.proxy.port}").geturl()
        options = f"options=-c%20search_path%3D{self.schema}%20-c%20application_name%3D{self.schema}"
        self.settings = {"DATABASE_URL": f"{through}{'&' if url.query else '?'}{options}"}
        return self

    def __exit__(self, *_):
        self.proxy.close()
        self.sql(f"DROP SCHEMA {self.schema} CASCADE")

    def sql(self, text):
        done = subprocess.run(
            ["psql", "-qAt", "-v", "ON_ERROR_STOP=1", POSTGRES, "-c", text],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        equal(done.returncode, 0, f"psql: {done.stderr.strip()}")
        return done.stdout.strip()


class Tmpfs:
    """A small file system that can be filled."""

    name = "SQLite"

    def __enter__(self):
        true(os.geteuid() == 0, "mounting a tmpfs takes root")
        self.temporary = tempfile.TemporaryDirectory(prefix="auspex-full-")
        self.folder = Path(self.temporary.name)
        options = f"size={TMPFS_MB}m,mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.folder], check=True)
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "--lazy", self.folder], check=True)
        self.temporary.cleanup()

    def fill(self):
        with open(self.folder / "ballast", "ab", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                pass

    def empty(self):
        (self.folder / "ballast").unlink()


class Ext4:
    """A file system on a loop device that can lose power."""

    name = "SQLite"

    def __enter__(self):
        true(os.geteuid() == 0, "mounting a loop device takes root")
        self.temporary = tempfile.TemporaryDirectory(prefix="auspex-power-")
        folder = Path(self.temporary.name)
        self.image, self.mounted = folder / "image", folder / "mounted"
        self.mounted.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(EXT4_MB << 20)
        subprocess.run(["mkfs.ext4", "-q", self.image], check=True)
        self._mount()
        return self

    def _mount(self):
        subprocess.run(["mount", "-o", "loop", self.image, self.mounted], check=True)

    def _unmount(self):
        subprocess.run(["umount", self.mounted], check=True)

    def __exit__(self, *_):
        self._unmount()
        self.temporary.cleanup()

    def cut(self):
        """From now on nothing reaches the device, not even what was written before and not synced.

        While the call is going on fdatasync may say yes to what does not reach the device (seen of a program
        that does nothing else, on Linux 6.18), which nobody would hear without power."""
        folder = os.open(self.mounted, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(folder)

    def restore(self):
        self._unmount()
        self._mount()


def jobs_go_on(server, jobs):
    """Each job that was taken is there, none that had succeeded has not, and all do in the end."""
    status = lambda job: Asking(server).ask("GET", f"/v1/jobs/{job}")[1].get("status", "lost")
    states = {job: status(job) for job in jobs}
    print(f"       {len(jobs)} jobs, of which {sum(jobs.values())} were seen to succeed: {collections.Counter(states.values())}")
    equal([job for job, state in states.items() if state == "lost"], [], "jobs that are lost")
    undone = [job for job, has_ended in jobs.items() if has_ended and states[job] != "succeeded"]
    equal(undone, [], "jobs that had succeeded")
    true(len(jobs) >= 3 and any(jobs.values()), "some were taken")
    for job in jobs:
        eventually(f"job {job} succeeds", lambda: status(job) == "succeeded", 60)


# --- scenarios


def kill(database, rounds, seconds):
    """kill -9 in the middle of changes"""
    model = Model()
    with database, Server(**database.settings) as server:
        with Clients(server, model, may_stop=True) as clients:
            for _ in range(rounds):
                time.sleep(random.uniform(0.2, 0.8))
                server.kill_and_start()
            time.sleep(1)
        agrees(server, model, clients)


def full(disk, rounds, seconds):
    """a full disk while keys are made, and space again"""
    model, told = Model(), set()
    with disk, Server(data=disk.folder / "data") as server:
        with Clients(server, model) as clients:
            for _ in range(3):
                time.sleep(2)
                disk.fill()
                ends = time.monotonic() + max(seconds / 9, HEALTH_S)
                while time.monotonic() < ends:
                    told.add(json.dumps(health(server)))
                    equal(Asking(server).ask("GET", "/health/ready")[0], 200, "readiness")
                    time.sleep(1)
                disk.empty()
        agrees(server, model, clients)
    true(any("disk full" in text for text in told), f"/health says disk full, not only {told}")
    true(model.counts["make 503"] > 10, "the disk was full")


def full_quiet(disk, rounds, seconds):
    """a full disk under predictions alone, and space again"""
    model = Model()
    with disk, Server(data=disk.folder / "data") as server:
        with Clients(server, model):
            time.sleep(2)
        disk.fill()
        with Clients(server, model, changing=0):
            for _ in range(int(seconds)):
                health(server)
                time.sleep(1)
        disk.empty()
        with Clients(server, model) as clients:
            time.sleep(10)
        agrees(server, model, clients)


def refused(database, rounds, seconds):
    """writes that the file system refuses"""
    model = Model()
    with database, Server(**database.settings) as server:
        limit = lambda size: subprocess.run(
            ["prlimit", "--pid", str(server.child.pid), f"--fsize={size}:"], check=True
        )
        with Clients(server, model) as clients:
            for _ in range(5):
                time.sleep(2)
                # Also in the middle of a page. The log may begin anew before it has to grow.
                limit(random.randrange(20_000, 200_000))
                time.sleep(max(seconds / 30, 2))
                limit("unlimited")
        agrees(server, model, clients)
    true(model.counts["make 503"] > 10, "writes were refused")


def power(disk, rounds, seconds):
    """a power cut in the middle of changes"""
    model, unsynced = Model(), 0
    with disk, Server(data=disk.mounted / "data", **CHUNKED) as server:
        with Clients(server, model, may_stop=True, submits=True) as clients:
            for _ in range(rounds // 2):
                time.sleep(random.uniform(0.2, 0.8))
                witness = disk.mounted / "witness"
                witness.write_bytes(b"never synced")
                model.power, model.cuts = FAILING, model.cuts + 1
                disk.cut()
                model.power = OFF
                time.sleep(random.uniform(0, 0.2))  # requests meet a dead disk
                server.kill()
                disk.restore()
                model.power = ON
                unsynced += not witness.exists() or witness.read_bytes() != b"never synced"
                equal((server.data / "admin.key").read_text().strip(), server.key, "the first key's file")
                server.start_again()
            time.sleep(1)
        agrees(server, model, clients)
        jobs_go_on(server, clients.jobs)
    true(unsynced > rounds // 4, "a power cut loses what was not synced")


def terminated(database, rounds, seconds):
    """sessions that PostgreSQL ends"""
    model = Model()
    with database, Server(**database.settings) as server:
        mine = f"FROM pg_stat_activity WHERE application_name = '{database.schema}'"
        ended = 0
        with Clients(server, model) as clients:
            for _ in range(30):
                time.sleep(0.4)
                ended += int(database.sql(f"SELECT count(pg_terminate_backend(pid)) {mine}"))
        agrees(server, model, clients)
    true(ended > 60, f"only {ended} sessions were ended")


def blocked(database, rounds, seconds):
    """a table that somebody else locks for long"""
    model = Model()
    with database, Server(**database.settings) as server:
        held_s = max(seconds / 9, 2 * CALL_TIMEOUT_S)
        lock = f"BEGIN; LOCK TABLE {database.schema}.identity_api_keys; SELECT pg_sleep({held_s})"
        with Clients(server, model) as clients:
            for _ in range(3):
                time.sleep(2)
                database.sql(f"{lock}; COMMIT")
        agrees(server, model, clients)
    true(model.counts["make 503"] > 5, "the table was locked")


def silent(database, rounds, seconds):
    """connections to PostgreSQL that fall silent"""
    model = Model()
    with database, Server(**database.settings) as server:
        with Clients(server, model, changing=12) as clients:
            for _ in range(max(2, int(seconds / 15))):
                time.sleep(3)
                database.proxy.silence()
                eventually("changes go on", lambda: health(server)["status"] == "healthy", 20)
        agrees(server, model, clients)


SCENARIOS = {
    "kill": (kill, [Sqlite, Postgres]),
    "full": (full, [Tmpfs]),
    "full-quiet": (full_quiet, [Tmpfs]),
    "refused": (refused, [Sqlite]),
    "power": (power, [Ext4]),
    "terminated": (terminated, [Postgres]),
    "blocked": (blocked, [Postgres]),
    "silent": (silent, [Postgres]),
}


def obstacle(place):
    """Why there can be no such place here."""
    if place is Postgres and not POSTGRES:
        return "AUSPEX_TEST_POSTGRES_URL names no PostgreSQL"
    if place in (Tmpfs, Ext4):
        try:
            with place():
                pass
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            return str(error)
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", choices=[[], *SCENARIOS])
    wanted = parser.parse_args()
    rounds = wanted.rounds or (6 if wanted.small else 60)
    seconds = wanted.seconds or (9 if wanted.small else 90)
    checks = Checks()
    for name in wanted.scenarios or SCENARIOS:
        scenario, places = SCENARIOS[name]
        for place in places:
            text = f"{name} on {place.name}: {scenario.__doc__}"
            missing = obstacle(place)
            if missing and wanted.small:
                print(f"       left out: {text}: {missing}", flush=True)
            elif missing:
                checks.run(text, true, False, missing)
            else:
                checks.run(text, scenario, place(), rounds, seconds)
    checks.finish()


if __name__ == "__main__":
    main()
