"""The appliance: what surrounds the two programs in one container or on one machine.

`prepare` runs before supervisord, `health_check` and `startup_banner` ask whether the programs are alive and ready,
`supervision` restarts them, `embedded` runs PostgreSQL and Valkey, `demo` plays matches into them. Of `app`, this
imports `app.core` only. It must never start embedded servers, or write a demo match, where the operator has set servers
of their own.
"""


class ApplianceError(Exception):
    """An error that only the user can fix; the message is one line that says what is wrong and what to do."""
