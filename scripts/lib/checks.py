"""Named checks, each reported on a line, and their count on the last."""

import json
import sys
import time
import traceback
from pathlib import Path


class Checks:
    def __init__(self):
        self.passed = 0
        self.failed = 0

    def run(self, name, function, *arguments):
        """Runs one check; it fails by raising. Returns whether it passed."""
        began = time.monotonic()
        try:
            function(*arguments)
        except Exception as error:
            self.failed += 1
            where = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__][-1:]
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            print(f"FAILED {name}\n       {kind}{error}")
            for frame in where:
                print(f"       ({Path(frame.filename).name}:{frame.lineno}: {frame.line})", flush=True)
            return False
        self.passed += 1
        print(f"ok     {name} ({time.monotonic() - began:.1f} s)", flush=True)
        return True

    def run_all(self, functions, *arguments):
        """Runs functions whose first line of documentation is the name of the check."""
        for function in functions:
            self.run(function.__doc__.splitlines()[0].rstrip("."), function, *arguments)

    def finish(self):
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(1 if self.failed or not self.passed else 0)


def equal(found, wanted, what="value"):
    if found != wanted:
        raise AssertionError(f"{what}: {short(found)} instead of {short(wanted)}")


def true(holds, what):
    if not holds:
        raise AssertionError(what)


def short(value, length=600):
    text = value if isinstance(value, str) else json.dumps(value, default=repr, ensure_ascii=False)
    return text if len(text) <= length else f"{text[:length]}… ({len(text)} characters)"
