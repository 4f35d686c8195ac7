"""The harness behind bench/run. Standard library only, so that it runs before anything is installed."""
