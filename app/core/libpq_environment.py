"""The environment variables of libpq, PostgreSQL's client library, which every connection of this process would obey.

What chooses a server, a login or a session's behaviour comes from the settings alone: a variable that a shell or an
image sets for psql must not lead to another server than DB_HOST. What serves authentication and TLS, and has no setting
of ours, counts.
"""

import os

# docs/settings.md lists both; a test compares them with what libpq knows.
COUNTED = frozenset({
    "PGPASSFILE", "PGCHANNELBINDING", "PGREQUIREAUTH", "PGREQUIREPEER", "PGSSLCERT", "PGSSLKEY",
    "PGSSLCERTMODE", "PGSSLCRL", "PGSSLCRLDIR", "PGSSLSNI", "PGSSLCOMPRESSION", "PGSSLMINPROTOCOLVERSION",
    "PGSSLMAXPROTOCOLVERSION", "PGGSSENCMODE", "PGGSSLIB", "PGGSSDELEGATION", "PGKRBSRVNAME",
})  # fmt: skip
IGNORED = frozenset({
    "PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSERVICE", "PGSERVICEFILE",
    "PGSYSCONFDIR", "PGCONNECT_TIMEOUT", "PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS", "PGSSLMODE",
    "PGREQUIRESSL", "PGSSLROOTCERT", "PGSSLNEGOTIATION", "PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION",
    "PGOPTIONS", "PGAPPNAME", "PGCLIENTENCODING", "PGDATESTYLE", "PGTZ", "PGGEQO",
})  # fmt: skip


def forget() -> list[str]:
    """Remove the variables that don't count from this process's environment; return which were set.

    To be called before the process connects or has threads. Three of them have no keyword in a connection string, so
    nothing but this keeps libpq from sending them.
    """
    found = sorted(IGNORED & os.environ.keys())
    for name in found:
        del os.environ[name]
    return found
