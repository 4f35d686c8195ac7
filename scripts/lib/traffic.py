"""Clients that ask a server again and again, and a record of what they were answered."""

import http.client
import json
import threading
import time
from typing import NamedTuple

TIMEOUT_S = 30


class Seen(NamedTuple):
    kind: str
    began: float
    ended: float
    status: int  # 0: no answer
    said: object

    @property
    def took_s(self):
        return self.ended - self.began

    def __str__(self):
        return f"{self.kind}: {self.status} after {self.took_s:.2f} s, {str(self.said)[:200]}"


class Client:
    """One kept connection, made anew after a failure. What it is answered goes into `seen`, by the kind of request."""

    def __init__(self, port, key=None, seen=None):
        self.headers = {"X-API-Key": key} if key else {}
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        self.seen = [] if seen is None else seen

    def ask(self, method, path, body=None, kind="", **headers):
        """Status and body of an answer, decoded where it is JSON; `body` is sent as JSON unless it is bytes."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | self.headers | headers
        began = time.monotonic()
        try:
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
            status, said = answer.status, answer.read()
            if answer.headers.get_content_type() == "application/json":
                said = json.loads(said)
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            status, said = 0, repr(error)
        self.seen.append(Seen(kind, began, time.monotonic(), status, said))
        return status, said


class Traffic:
    """`with Traffic() as traffic:` runs what is added, each on a thread of its own, until the end."""

    def __init__(self):
        self.ends, self.threads, self.failures = threading.Event(), [], []

    def add(self, work, pause_s):
        """Does `work` again and again, with a pause between."""

        def run():
            try:
                while not self.ends.wait(pause_s):
                    work()
            except Exception as failure:
                self.failures.append(failure)

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ends.set()
        for thread in self.threads:
            thread.join()
        if self.failures:
            raise self.failures[0]
