"""The numbering as a state machine: no sockets, no clock."""
