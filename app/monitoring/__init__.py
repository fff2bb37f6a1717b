"""What operators see of a worker and of all processes."""
