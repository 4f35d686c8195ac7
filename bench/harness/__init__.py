"""The harness behind bench/run: standard library only, so it runs before anything is installed."""
