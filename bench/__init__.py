"""What notifymux costs and carries, measured: `python -m bench NAME`; bench/README.md says how."""
