"""Benchmarks of notifymux: `python -m bench NAME`. bench/README.md describes each."""
