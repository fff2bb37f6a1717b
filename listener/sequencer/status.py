"""What the registry shows of a listener's place in the numbering."""

from listener.sequencer.active import Active
from listener.sequencer.aligning import Aligning
from listener.sequencer.sequencer import Sequencer


def report(numbering: Sequencer | None) -> dict[str, str | int]:
    """Role, position and buffer; without a numbering there is no session with PostgreSQL."""
    role, position, buffered, size = "unaligned", "", 0, 0
    match numbering and numbering.phase:
        case Active() as count:
            role, position = count.role.value, f"{count.epoch}-{count.sequence}"
            buffered, size = len(count.buffer), count.buffer.bytes
        case Aligning() as search:
            buffered, size = len(search.early), search.early_bytes
    if numbering is None:
        role = "unconnected"
    return {"role": role, "position": position, "buffered": buffered, "buffered_bytes": size}
