"""The sequencer: gives every notification its id, `epoch-sequence`, by the rules of docs/numbering.md.

It is a state machine without I/O. `sequencer.Sequencer` is told what was received and asked what to send next; its
state is one of two phases, `aligning.Aligning` (ids are not known yet) and `active.Active`. The package imports
`app.core`, `listener.stats` and `notifymux.event`, and nothing that has a socket, a clock or a thread, because
tests/simulation runs it with simulated ones. Two things must never happen: two events under one id, and an event that
is left out without a new epoch that announces the gap.
"""
