"""Are texts kept only with consent, whatever happens? The scenarios of `scripts/prove dialogues`, in small."""

import runpy
import sys
from pathlib import Path

PROOF = Path(__file__).resolve().parents[1] / "prove.d" / "dialogues.py"

sys.argv[1:] = ["--small"]
runpy.run_path(str(PROOF), run_name="__main__")
