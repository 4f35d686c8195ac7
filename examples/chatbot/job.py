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


class Chatbot:
    def __init__(self, url, key):
        self.client = httpx.Client(base_url=url, headers={"X-API-Key": key}, timeout=10)
        self.open = {}
        """{dialogue: its texts} of the customers who have not decided yet."""

    def say(self, customer, dialogue, language, text):
        texts = self.open.setdefault(dialogue, [])
        if texts:
            self._renew(dialogue)  # before this text, so that all stay in order
        texts.append((customer, language, text))
        self._push(dialogue, len(texts) - 1)

    def decide(self, dialogue, consent):
        """How many texts the decision was about."""
        texts = self.open[dialogue]
        while True:
            self._renew(dialogue)
            answer = self._send("POST", f"/consents/{quote(dialogue, safe='')}", json=consent)
            if answer.status_code == 404:  # restarted since
                continue
            answer.raise_for_status()
            count = answer.json()["texts"]
            if count != len(texts):
                raise RuntimeError(f"the decision was about {count} texts instead of {len(texts)}")
            del self.open[dialogue]
            return count

    def _renew(self, dialogue):
        """Hands in again what the server has lost."""
        answer = self._send("GET", f"/v1/dialogues/{quote(dialogue, safe='')}")
        if answer.status_code != 404:
            answer.raise_for_status()
            known = answer.json()
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
        answer.raise_for_status()

    def _send(self, method, path, **parts):
        """The first answer that is not about a server that is away or full for now."""
        for tried in range(TRIES):
            pause_s = min(PAUSE_S * 2**tried, PAUSE_S_MAX)
            try:
                answer = self.client.request(method, path, **parts)
            except httpx.TransportError:
                pass
            else:
                if answer.status_code not in (429, 503):
                    return answer
                pause_s = max(pause_s, float(answer.headers.get("Retry-After", 0)))
            time.sleep(pause_s)
        raise RuntimeError(f"no answer to {method} after {TRIES} tries")


def main():
    chatbot = Chatbot(os.environ.get("AUSPEX_URL", "http://127.0.0.1:8080"), os.environ["AUSPEX_KEY"])
    for line in filter(str.strip, sys.stdin):
        turn = json.loads(line)
        if "consent" in turn:
            count = chatbot.decide(turn["dialogue"], turn["consent"])
            print(f"{count} texts {'kept' if turn['consent'] else 'dropped'}", flush=True)
        else:
            chatbot.say(turn["customer"], turn["dialogue"], turn["language"], turn["text"])


if __name__ == "__main__":
    main()
