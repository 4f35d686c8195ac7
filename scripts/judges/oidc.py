"""Judge: openid-client, oauth4webapi and jose log in through the real pages, in a browser.

The checks are in oidc.mjs and pages.mjs. Pictures of the pages go to the folder named by PAGES,
by default $CARGO_TARGET_DIR/logs/pages.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

from checks import Checks, equal, true
from node import run_checks
from server import ROOT, TARGET, Server

RUN_S = 240


def main():
    checks = Checks()
    pages = os.environ.get("PAGES") or str(TARGET / "logs" / "pages")
    with Server() as server:
        more = {"AUSPEX_URL": server.url, "AUSPEX_KEY": server.key, "DOCUMENTATION": str(ROOT / "docs" / "OAUTH.md")}
        run_checks(checks, "oidc.mjs", RUN_S, PAGES=pages, **more)
        checks.run("the server still runs", true, server.running(), "it has ended")
    for algorithm in ("ES256", "RS256"):
        with Server(AUSPEX__IDENTITY__TOKENS__ALGORITHM=algorithm) as one:
            more = {"AUSPEX_URL": one.url, "AUSPEX_KEY": one.key, "ALGORITHM": algorithm}
            run_checks(checks, "algorithms.mjs", RUN_S, **more)
    checks.run("SIGTERM ends the server with exit code 0", equal, server.exit_code, 0, "exit code")
    checks.finish()


main()
