"""What the gunicorn workers run: events in, WebSocket clients out."""
