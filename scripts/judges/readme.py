"""Judge: the commands of the README and of guides work. README.md beside this file has the rules.

They run as they stand, building what they build, unless AUSPEX_BINARY names a program: then that one runs instead.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, short, true
from server import BINARY, ROOT, TARGET, environment, free_port

DOCUMENTS = ["README.md", "docs/GATEWAY.md"]
OTHER = shlex.quote(str(BINARY.resolve())) if os.environ.get("AUSPEX_BINARY") else None
PROGRAM = re.compile(r"cargo run --release --|target/release/auspex")
USUAL = re.compile(r"(127\.0\.0\.1|localhost):8080\b")
BLOCK = re.compile(
    r"^<!-- *tested(?:: *(?P<how>server|prints) *(?P<text>.*?))? *-->\n+```(?P<language>\w*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
MARK = re.compile(r"^<!-- *tested\b", re.MULTILINE)
ERROR = re.compile(r'"error": *\{ *"code"')
ALL_BLOCKS_S = 900  # a block may build
SERVER_S = 600


class Block:
    def __init__(self, document, number, found, text):
        self.document = document
        self.number = number
        self.how = found["how"]
        self.prints = (found["text"] or "").strip()
        self.language = found["language"]
        self.body = found["body"]
        self.line = text.count("\n", 0, found.start("body")) + 1

    def name(self):
        return f"{self.document} line {self.line}: {self.body.strip().splitlines()[0][:70]}"


def blocks_of(document, text):
    return [Block(document, number, found, text) for number, found in enumerate(BLOCK.finditer(text), 1)]


def script_of(blocks, port, notes):
    """One bash program with all the blocks; each writes to a file of its own."""
    parts = ["set -euo pipefail"]
    for block in blocks:
        body = USUAL.sub(rf"\1:{port}", block.body)
        body = PROGRAM.sub(lambda _: OTHER, body) if OTHER else body
        parts.append(f"echo {block.number} >>{notes}/begun")
        if block.how == "server":
            parts.append(f"(\n{body}\n) >{notes}/{block.number} 2>&1 &")
            parts.append(
                f"server=$! until=$((SECONDS + {SERVER_S}))\n"
                f"until curl --silent --fail --output {notes}/ready http://127.0.0.1:{port}/health/ready; do\n"
                f"  kill -0 $server || exit 1\n"
                f"  ((SECONDS < until)) || exit 1\n"
                f"  sleep 0.2\n"
                f"done 2>>{notes}/{block.number}"
            )
        else:
            parts.append(f"exec >{notes}/{block.number} 2>&1\n{body}")
        parts.append(f"exec >{notes}/rest 2>&1\necho {block.number} >>{notes}/ended")
    return "\n".join(parts) + "\n"


def copy_checkout(to):
    """What a fresh clone would have: the files that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=60,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    (to / "target").symlink_to(TARGET)


def run(blocks, folder):
    """Runs the blocks; gives the numbers of those begun, of those that ended well, and all output."""
    checkout, notes = folder / "auspex", folder / "notes"
    checkout.mkdir()
    notes.mkdir()
    copy_checkout(checkout)
    port = free_port()
    env = environment(
        AUSPEX__SERVER__LISTEN=f"127.0.0.1:{port}",
        CARGO_TARGET_DIR=str(TARGET),
        PATH=f"{BINARY.parent}:{os.environ['PATH']}",
        HOME=os.environ.get("HOME", str(folder)),
    )
    child = subprocess.Popen(
        ["bash"],
        stdin=subprocess.PIPE,
        cwd=checkout,
        env=env,
        text=True,
        start_new_session=True,  # so that the server ends with everything that was started
    )
    try:
        program = folder / "program"
        program.write_text(script_of(blocks, port, notes))
        child.communicate(f"exec bash {program} </dev/null\n", timeout=ALL_BLOCKS_S)
    except subprocess.TimeoutExpired:
        print(f"not done within {ALL_BLOCKS_S} s")
    finally:
        end(child)
    output = {b.number: read(notes / str(b.number)) for b in blocks}
    begun, ended = ({int(line) for line in read(notes / name).split()} for name in ("begun", "ended"))
    return begun, ended, output


def end(child):
    """Ends the session of `child`, in which is all that the blocks have started and nothing else."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        for _ in range(100):
            child.poll()
            try:
                os.killpg(child.pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.1)
    child.wait(10)


def read(path):
    return path.read_text(errors="replace") if path.exists() else ""


def judge(checks, document):
    text = (ROOT / document).read_text()
    blocks = blocks_of(document, text)

    def marked():
        true(blocks, f"no block of {document} is marked with <!-- tested -->")
        marks = len(MARK.findall(text))
        true(marks == len(blocks), f"{marks} marks, but {len(blocks)} of them stand before a ```sh block")
        wrong = [block.line for block in blocks if block.language not in ("sh", "bash")]
        true(not wrong, f"blocks in lines {wrong} are not marked as sh")

    def works(block, begun, ended, output):
        said = output[block.number]
        true(block.number in begun, "it was not reached, for one before it failed")
        true(block.number in ended, f"it failed; it said:\n{short(said, 2000)}")
        if block.how == "prints":
            true(block.prints in said, f"it does not print {block.prints!r}, but:\n{short(said, 2000)}")
        elif block.how is None:
            true(not ERROR.search(said), f"it prints an error:\n{short(said, 2000)}")

    if checks.run(f"{document} has blocks to be tested", marked):
        with tempfile.TemporaryDirectory(prefix="auspex-readme-") as folder:
            begun, ended, output = run(blocks, Path(folder))
        for block in blocks:
            checks.run(block.name(), works, block, begun, ended, output)


def main():
    checks = Checks()
    for document in sys.argv[1:] or DOCUMENTS:
        judge(checks, document)
    checks.finish()


main()
