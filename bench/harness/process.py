"""A server process with all its workers: started, watched in /proc, and always stopped.

A server gets a session of its own, so its workers are known even when their parent has gone, and
nothing that this program did not start is ever signalled.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

STOP_S = 10
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def machine_cpu_s():
    """Processor time that all programs of this machine have used, without interrupts."""
    user, nice, system = Path("/proc/stat").read_text().split(maxsplit=4)[1:4]
    return (int(user) + int(nice) + int(system)) / TICKS_PER_S


class ServerProcess:
    def __init__(self, command, env, cwd, log):
        with open(log, "wb") as output:
            self.started = time.monotonic()
            self.child = subprocess.Popen(
                command,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        impatience = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.stop()
        finally:
            signal.signal(signal.SIGINT, impatience)

    def running(self):
        return self.child.poll() is None

    def members(self):
        """{pid: fields of /proc/PID/stat from the state on} of the processes in our session."""
        found = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue  # gone meanwhile
            fields = stat[stat.rindex(")") + 2 :].split()
            state, session = fields[0], int(fields[3])
            if session == self.child.pid and state != "Z":
                found[int(entry)] = fields
        return found

    def cpu_s(self):
        """Processor time used so far, user and system."""
        ticks = sum(int(f[11]) + int(f[12]) for f in self.members().values())
        return ticks / TICKS_PER_S

    def memory_mb(self):
        """Resident memory of all processes: {"rss", "pss"} in MB (10^6 bytes).

        RSS counts pages that processes share once for each of them, PSS divides them.
        """
        total = {"rss": 0, "pss": 0}
        for pid in self.members():
            try:
                lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            for line in lines:
                name, _, rest = line.partition(":")
                if name.lower() in total:
                    total[name.lower()] += int(rest.split()[0]) * 1024
        return {name: value / 1e6 for name, value in total.items()}

    def settle(self, quiet_s=0.5, longest_s=20):
        """Waits until the server idles: with workers, the first answer comes before all are up."""
        ends = time.monotonic() + longest_s
        before = self.cpu_s()
        while time.monotonic() < ends:
            time.sleep(quiet_s)
            now = self.cpu_s()
            if now - before <= 0.04 * quiet_s:
                return
            before = now

    def stop(self):
        for number, wait_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
            targets = [self.child.pid] if number == signal.SIGTERM else list(self.members())
            if self.child.returncode is not None:
                targets = list(self.members())  # workers that outlived their parent
            for pid in targets:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            ends = time.monotonic() + wait_s
            while time.monotonic() < ends:
                self.child.poll()
                if self.child.returncode is not None and not self.members():
                    return
                time.sleep(0.02)
