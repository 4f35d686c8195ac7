"""A TCP proxy whose connections can fall silent without being closed, as behind a router that drops
what it carries."""

import socket
import threading


class Proxy:
    def __init__(self, host, port):
        self.target = (host, port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.era = 0
        self.open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self):
        """From now on nothing passes on the connections there are."""
        self.era += 1

    def close(self):
        for one in [self.listener, *self.open]:
            one.close()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(self.target)
            except OSError:
                return
            self.open += [client, server]
            for ends in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(*ends, self.era), daemon=True).start()

    def _carry(self, source, sink, era):
        try:
            while chunk := source.recv(1 << 16):
                if era != self.era:
                    return
                sink.sendall(chunk)
        except OSError:
            pass
        if era == self.era:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
