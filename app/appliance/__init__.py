"""What surrounds the two programs: the embedded PostgreSQL and Valkey with their demo, and the appliance's start."""


class ApplianceError(Exception):
    """Only the user can mend this; the message is one line that says what is wrong and what to do."""
