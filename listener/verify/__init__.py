"""`python -m listener verify`: looks at both servers and sends a canary down every path."""
