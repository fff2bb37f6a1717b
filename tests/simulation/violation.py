"""What the simulation reports."""


class Violation(AssertionError):  # noqa: N818 - it is what the tests call it
    """A guarantee was broken."""
