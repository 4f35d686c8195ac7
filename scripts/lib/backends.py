"""PostgreSQL, Redis and RabbitMQ of our own: started, killed, stopped in order, frozen, and started again with their data."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from checks import true
from server import free_port

READY_S = 60  # RabbitMQ takes its time on a busy machine
STOP_S = 30


def descendants(pid):
    """The processes that `pid` has started, and those that these have."""
    children = [
        int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
    ]
    return children + [each for child in children for each in descendants(child)]


class Backend:
    """`with Redis() as redis:` a running one at `redis.url`, for this machine only, gone afterwards."""

    user = None
    stop_signal = signal.SIGTERM

    def __enter__(self):
        self.folder, self.port, self.child = Path(tempfile.mkdtemp(prefix="auspex-backend-")), free_port(), None
        try:
            self.prepare()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.child and self.child.poll() is None:
            self.thaw()
            self.stop()
        self.clean()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        """Returns as soon as it serves."""
        self.launch()
        ends = time.monotonic() + READY_S
        while not self.serves():
            true(self.child.poll() is None and time.monotonic() < ends, f"it does not start:\n{self.log()}")
            time.sleep(0.05)

    def launch(self):
        with open(self.folder / "log", "ab") as log:
            self.child = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=os.environ | self.environment(),
                user=self.user,
                group=self.user,
                extra_groups=[] if self.user else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self):
        self.child.send_signal(self.stop_signal)
        self.child.wait(STOP_S)

    def kill(self):
        self._signal_all(signal.SIGKILL)
        self.child.wait(STOP_S)

    def freeze(self):
        self._signal_all(signal.SIGSTOP)

    def thaw(self):
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number):
        for pid in [self.child.pid, *descendants(self.child.pid)]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def log(self):
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-20:])

    def said(self, sent, awaited):
        """Whether it answers what is sent with something that begins as awaited."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(sent)
                return connection.recv(64).startswith(awaited)
        except OSError:
            return False

    def prepare(self):
        pass

    def clean(self):
        pass

    def environment(self):
        return {}


class Postgres(Backend):
    """With an empty database `test`; as user `postgres` where we are root, as whom it does not run."""

    user = "postgres" if os.geteuid() == 0 else None
    stop_signal = signal.SIGINT  # sessions are ended, not waited for

    def prepare(self):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
        self.programs = found[-1] if found else Path(shutil.which("initdb")).parent
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/test"
        if self.user:
            shutil.chown(self.folder, self.user, self.user)
        self.fill()

    def fill(self):
        """Makes the folder `data`."""
        self._run(
            "initdb",
            "--pgdata=data",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        )
        self.start()
        self.query("create database test", "postgres")
        self.stop()

    def command(self):
        settings = (
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}",
            "fsync=off",
            "max_connections=200",
        )
        options = [word for setting in settings for word in ("-c", setting)]
        return [self.programs / "postgres", "-D", "data", "-p", str(self.port), *options]

    def serves(self):
        return (
            self._run("pg_isready", "--quiet", "--host=127.0.0.1", f"--port={self.port}", check=False).returncode == 0
        )

    def query(self, text, database="test"):
        address = f"postgres://postgres@127.0.0.1:{self.port}/{database}"
        return self._run("psql", "--no-align", "--tuples-only", address, "--command", text).stdout.strip()

    def _run(self, program, *arguments, check=True):
        done = subprocess.run(
            [self.programs / program, *arguments],
            check=False,
            cwd=self.folder,
            user=self.user,
            group=self.user,
            extra_groups=[] if self.user else None,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=READY_S,
        )
        true(not check or done.returncode == 0, f"{program}: {done.stderr.strip()}")
        return done


class Redis(Backend):
    """Without persistence, as Auspex wants it."""

    def prepare(self):
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def command(self):
        return [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--save",
            "",
            "--maxmemory-policy",
            "noeviction",
        ]

    def serves(self):
        return self.said(b"PING\r\n", b"+PONG")


class RabbitMQ(Backend):
    """A node of its own, with an epmd of its own."""

    def prepare(self):
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}"
        self.epmd_port, self.dist_port = free_port(), free_port()
        (self.folder / "rabbitmq.conf").write_text(f"listeners.tcp.local = 127.0.0.1:{self.port}\n")
        (self.folder / "plugins").write_text("[].\n")

    def command(self):
        return ["/usr/lib/rabbitmq/bin/rabbitmq-server"]

    def environment(self):
        return {
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"auspex-{self.port}@localhost",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_SERVER_START_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def serves(self):
        return self.said(b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00")

    def clean(self):
        command = ["epmd", "-port", str(self.epmd_port), "-kill"]
        for _ in range(40):  # it refuses until it has noticed that the node is gone
            if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.05)
