"""Dialogues in Flask, as in many a data API: texts in memory until the customer decides, then SQLite.

One process, since its memory is what holds the texts; gunicorn gives it threads.
"""

import os
import sqlite3
import threading
import time

from flask import Flask, abort, g, jsonify, request

DATABASE = os.environ["DIALOGUES_DATABASE"]

app = Flask(__name__)
pending = {}
lock = threading.Lock()


def database():
    if "database" not in g:
        g.database = sqlite3.connect(DATABASE, timeout=30)
        g.database.execute("PRAGMA journal_mode = WAL")
        g.database.execute("PRAGMA synchronous = FULL")
    return g.database


@app.teardown_appcontext
def close(_):
    if "database" in g:
        g.database.close()


with sqlite3.connect(DATABASE) as connection:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS texts (id INTEGER PRIMARY KEY, customer TEXT, dialogue TEXT,"
        " language TEXT, text TEXT, received REAL)"
    )
    for column in ("customer", "language"):
        connection.execute(f"CREATE INDEX IF NOT EXISTS by_{column} ON texts ({column}, received)")


@app.post("/data/<customer>/<dialogue>")
def push(customer, dialogue):
    body = request.get_json()
    text, language = body.get("text"), body.get("language")
    if not isinstance(text, str) or not isinstance(language, str):
        abort(422)
    with lock:
        texts = pending.setdefault(dialogue, [])
        texts.append((customer, dialogue, language, text, time.time()))
    return jsonify(status="pending")


@app.post("/consents/<dialogue>")
def consent(dialogue):
    given = request.get_json()
    if not isinstance(given, bool):
        abort(400)
    with lock:
        texts = pending.pop(dialogue, None)
    if texts is None:
        abort(404)
    if given:
        with database() as transaction:
            transaction.executemany(
                "INSERT INTO texts (customer, dialogue, language, text, received) VALUES (?, ?, ?, ?, ?)",
                texts,
            )
    return jsonify(dialog_id=dialogue, consent=given, texts=len(texts))


@app.get("/data/")
def read():
    wanted, values = [], []
    for column, name in (("language", "language"), ("customer", "customerId")):
        if name in request.args:
            wanted.append(f"{column} = ?")
            values.append(request.args[name])
    where = f"WHERE {' AND '.join(wanted)}" if wanted else ""
    rows = database().execute(
        f"SELECT customer, dialogue, language, text, received FROM texts {where} ORDER BY received DESC LIMIT 100",
        values,
    )
    names = ("customer_id", "dialog_id", "language", "text", "received_at")
    return jsonify(data=[dict(zip(names, row, strict=True)) for row in rows])
