"""What operators see: statistics, the registry of processes, `/api/status` and `/metrics`.

It may import `app.core`, `app.sources.base`, `app.broadcast` and `notifymux`. It only reads a worker, through the
protocol `WorkerState`. It must never delay events: for each event it only counts, everything else happens once a second
or on request, and everything that it keeps is bounded. A Redis that is away or refuses must not end a worker.
"""
