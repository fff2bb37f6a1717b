"""From events to clients: which match, who hears it, what waits."""
