"""What the registry shows of a listener's place in the numbering."""

from listener.sequencer.active import Count
from listener.sequencer.aligning import Search
from listener.sequencer.sequencer import Numbering


def report(numbering: Numbering | None) -> dict[str, str | int]:
    """Role, position and buffer; without a numbering there is no session with PostgreSQL."""
    role, position, buffered, size = "unaligned", "", 0, 0
    match numbering and numbering.phase:
        case Count() as count:
            role, position = count.role.value, f"{count.epoch}-{count.sequence}"
            buffered, size = len(count.buffer), count.buffer.bytes
        case Search() as search:
            buffered, size = len(search.early), search.early_bytes
    if numbering is None:
        role = "unconnected"
    return {"role": role, "position": position, "buffered": buffered, "buffered_bytes": size}
