"""Is what was acknowledged stored, whatever fails? The scenarios of `scripts/prove durable`, in small."""

import runpy
import sys
from pathlib import Path

PROOF = Path(__file__).resolve().parents[1] / "prove.d" / "durable.py"

sys.argv[1:] = ["--small"]
runpy.run_path(str(PROOF), run_name="__main__")
