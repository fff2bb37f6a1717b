"""The process that LISTENs: `python -m listener`."""
