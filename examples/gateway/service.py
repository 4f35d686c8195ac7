"""A small service behind the gateway: python3 service.py customers PORT, or orders."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

CUSTOMERS = {"7": {"id": "7", "name": "Ada"}, "8": {"id": "8", "name": "Grace"}}
ORDERS = [{"id": "1", "customer": "7", "total": 12.5}, {"id": "2", "customer": "7", "total": 3.0}]


def find(name, target):
    """What is there; None if there is nothing."""
    kind, _, key = target.path.strip("/").partition("/")
    if kind != name:
        return None
    if name == "customers":
        return CUSTOMERS.get(key)
    if key:
        return next((order for order in ORDERS if order["id"] == key), None)
    customer = parse_qs(target.query).get("customer", [None])[0]
    return [order for order in ORDERS if customer in (None, order["customer"])]


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        found = find(sys.argv[1], urlsplit(self.path))
        data = json.dumps({"error": "not found"} if found is None else found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_HEAD = do_GET


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Service).serve_forever()
