"""Memory of a server under test, read each second, which may not grow."""

import statistics
import threading
import time

from checks import true

GROWTH_MAX = 0.10
SLACK_MB = 4  # of a server this small a tenth is next to nothing


class Memory:
    """`with Memory(server) as memory:` samples until the end; `memory.check()` judges them.

    After the first fifth of the time, which caches and allocators may use to fill up, it may grow by
    a tenth at most.
    """

    def __init__(self, server):
        self.server = server
        self.samples, self.stop = [], threading.Event()

    def __enter__(self):
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.watcher.join()

    def _watch(self):
        while not self.stop.wait(1):
            self.samples.append((time.monotonic(), self.server.rss_mb()))

    def check(self):
        first, last = self.samples[0][0], self.samples[-1][0]
        fifth = (last - first) / 5
        early = statistics.median(mb for at, mb in self.samples if first + fifth <= at < first + 2 * fifth)
        late = statistics.median(mb for at, mb in self.samples if at >= last - fifth)
        most = max(mb for _, mb in self.samples)
        grown = late - early
        print(f"       {early:.1f} MB early, {late:.1f} MB late, {most:.1f} MB at most")
        true(grown <= max(early * GROWTH_MAX, SLACK_MB), f"memory grew by {grown:.1f} MB")
