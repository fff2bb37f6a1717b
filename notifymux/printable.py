"""Text from anybody, as a terminal may print it."""


def printable(text: str) -> str:
    """Return text with everything escaped that is not printed as it is: control characters, line breaks, surrogates."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
