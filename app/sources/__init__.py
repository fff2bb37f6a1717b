"""Where a worker's events come from: Redis, or PostgreSQL itself."""
