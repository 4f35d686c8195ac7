"""Where things are, relative to the repository."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
PEERS = BENCH / "peers"
VENV = BENCH / ".venv"
RESULTS = BENCH / "results"
MODELS = ROOT / "models"
MODEL = MODELS / "santander" / "1" / "model.ubj"
FIXTURES = ROOT / "crates" / "engine" / "tests" / "data" / "santander"
