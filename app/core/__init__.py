"""What the listener and the web side share: settings, the event, the names in Redis, both servers' edges."""
