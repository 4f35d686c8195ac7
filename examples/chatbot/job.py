"""The background job of a chatbot: hands in what customers write, and what they decide at the end.

    job.py < dialogues.jsonl

Each line is a text, {"customer", "dialogue", "language", "text"}, or a decision, {"dialogue", "consent"}.
AUSPEX_URL names the server and AUSPEX_KEY a key with the scope data:write.

Until a customer decides, the server keeps their texts in memory alone. So does this job, which therefore
survives a restart of the server: a dialogue that the server no longer knows is handed in again.
"""

import json
import os
import sys
import time
from urllib.parse import quote

import httpx

TRIES = 12
PAUSE_S = 0.25
PAUSE_S_MAX = 5
TRIES_UNSAID = 4
START_S = 5
"""How long a server may take to start, or to know a new key."""


class Failed(Exception):
    """What went wrong, for people."""


class Chatbot:
    def __init__(self, url, key):
        self.url = url
        self.client = httpx.Client(base_url=url, headers={"X-API-Key": key}, timeout=10)
        self.open = {}
        """{dialogue: its texts} of the customers who have not decided yet."""

    def check(self):
        """Fails where the server is not there, or does not take the key, before any text is read."""
        ends = time.monotonic() + START_S
        while True:
            is_over = time.monotonic() > ends
            try:
                answer = self.client.get("/v1/me")
            except (httpx.TransportError, httpx.InvalidURL) as error:
                if is_over:
                    raise Failed(f"nothing answers at {self.url} (AUSPEX_URL): {error}") from None
            else:
                if answer.status_code in (429, 503):
                    return
                if answer.status_code != 401 or is_over:
                    self._good(answer, "AUSPEX_KEY")
                    return
            time.sleep(PAUSE_S)

    def say(self, customer, dialogue, language, text):
        texts = self.open.setdefault(dialogue, [])
        if texts:
            self._renew(dialogue)  # before this text, so that all stay in order
        texts.append((customer, language, text))
        self._push(dialogue, len(texts) - 1)

    def decide(self, dialogue, consent):
        """How many texts the decision was about."""
        texts = self.open.get(dialogue)
        if texts is None:
            raise Failed(f"the decision about {dialogue} comes before any text of it")
        while True:
            self._renew(dialogue)
            answer = self._send("POST", f"/consents/{quote(dialogue, safe='')}", json=consent)
            if answer.status_code == 404:  # restarted since
                continue
            count = self._good(answer, f"the decision about {dialogue}").json()["texts"]
            if count != len(texts):
                raise Failed(f"the decision about {dialogue} was about {count} texts instead of {len(texts)}")
            del self.open[dialogue]
            return count

    def _renew(self, dialogue):
        """Hands in again what the server has lost."""
        answer = self._send("GET", f"/v1/dialogues/{quote(dialogue, safe='')}")
        if answer.status_code != 404:
            known = self._good(answer, dialogue).json()
            if known["status"] != "pending" or known["texts"] == len(self.open[dialogue]):
                return
        for number in range(len(self.open[dialogue])):
            self._push(dialogue, number)

    def _push(self, dialogue, number):
        customer, language, text = self.open[dialogue][number]
        # However often it is sent, the text counts once.
        key = {"Idempotency-Key": f"text-{number}"}
        path = f"/data/{quote(customer, safe='')}/{quote(dialogue, safe='')}"
        answer = self._send("POST", path, json={"text": text, "language": language}, headers=key)
        self._good(answer, f"text {number + 1} of {dialogue}")

    def _good(self, answer, about):
        """The answer, unless it is a refusal."""
        if answer.is_success:
            return answer
        try:
            error = answer.json()["error"]
            fields = "".join(f"; {detail['field']} {detail['message']}" for detail in error["details"])
            message = error["message"] + fields
        except (ValueError, KeyError, TypeError):
            message = f"no answer of Auspex, at {self.url}"
        raise Failed(f"{about}: {answer.status_code}, {message}")

    def _send(self, method, path, **parts):
        """The first answer that is not about a server that is away or full for now."""
        for tried in range(TRIES):
            pause_s = min(PAUSE_S * 2**tried, PAUSE_S_MAX)
            try:
                answer = self.client.request(method, path, **parts)
            except httpx.TransportError as error:
                cause = str(error)
            else:
                if answer.status_code not in (429, 503):
                    return answer
                cause = f"it answers {answer.status_code}"
                pause_s = max(pause_s, float(answer.headers.get("Retry-After", 0)))
            if tried == TRIES_UNSAID:
                print(f"job.py: waiting for {self.url}: {cause}", file=sys.stderr)
            time.sleep(pause_s)
        raise Failed(f"{self.url} does not take it after {TRIES} tries: {cause}")


def main():
    key = os.environ.get("AUSPEX_KEY", "").strip()
    if not key:
        raise Failed("AUSPEX_KEY is empty; `auspex keys create --name chatbot --scope data:write` makes a key")
    chatbot = Chatbot(os.environ.get("AUSPEX_URL", "http://127.0.0.1:8080"), key)
    chatbot.check()
    for number, line in enumerate(sys.stdin, 1):
        if line.strip():
            try:
                take(chatbot, json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise Failed(f"line {number} is neither a text nor a decision: {error!r}") from None


def take(chatbot, turn):
    if "consent" in turn:
        count = chatbot.decide(turn["dialogue"], turn["consent"])
        print(f"{count} texts {'kept' if turn['consent'] else 'dropped'}", flush=True)
    else:
        chatbot.say(turn["customer"], turn["dialogue"], turn["language"], turn["text"])


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit(f"job.py: {failed}")
