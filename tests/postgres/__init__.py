"""What PostgreSQL servers do to those who LISTEN: stall, fail over, refuse, split."""
