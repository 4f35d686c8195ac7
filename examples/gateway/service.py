"""A small service behind the gateway: python3 service.py NAME PORT. It says what reached it."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = {"service": sys.argv[1], "method": self.command, "path": self.path}
        body["caller"] = self.headers.get("X-Forwarded-For")
        data = json.dumps(body).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Service).serve_forever()
