"""Events through Redis, for any program: the service that publishes and receives them, and the event."""
