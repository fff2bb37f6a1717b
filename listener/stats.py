"""What a listener did since its process started: plain data, for who watches."""

from app.core.incident_log import Incidents


class ListenerStats:
    """Counters of events, and the incidents that are to stand in the ledger."""

    def __init__(self) -> None:
        self.begun_beside = 0
        self.received = 0  # notifications that PostgreSQL delivered
        self.added = 0  # of them, appended and published
        self.suppressed = 0  # found in the stream already: another listener was faster
        self.restored = 0  # put back, without being published again
        self.given_up = 0  # dropped from a full buffer
        self.failovers = 0  # times that it had to append although it was a standby
        self.epochs = 0  # times that it had everybody count anew
        self.incidents = Incidents()
