"""Restarts programs that end or hang: supervisord's part is to start and stop them, the decisions are made here.

supervisord alone restarts without any delay what ran for a while (`autorestart`), gives up what fails to start more
than `startretries` times, with a delay that has no upper bound, does not notice that a running program hangs, and at
shutdown ends one program after the other, which takes longer than the 10 s that Docker waits. So its `autorestart` is
off. `watchdog` is supervisord's event listener and carries out what `restart_policy` and `hang_detector` (pure: no
clock, no files) decide; `watchdog_guard` replaces a watchdog that hangs; `parent_death` ends programs whose supervisord
was killed; `output_relay` runs around supervisord, so that it never waits for whoever reads the container's log.

Of `app`, this imports `app.core` only, and as little of that as possible: the watchdog, its guard and the relay stay in
memory. They must never stop a program that an operator started, or start one that an operator stopped.
"""
