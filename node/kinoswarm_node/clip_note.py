"""Reads a clip and the signed note beside it. Owns the bounds of both files; the check itself is the protocol's."""

from pathlib import Path

from kinoswarm_protocol.envelope import Opened
from kinoswarm_protocol.errors import BadSignature, LimitExceeded, LocalError
from kinoswarm_protocol.invite import Invite
from kinoswarm_protocol.provenance import PROVENANCE, Provenance, open_provenance

MAX_CLIP_BYTES = 1 << 30
_SLACK = 1_024


def read_clip_note(clip: Path, note: Path, invite: Invite) -> Opened[Provenance]:
    """The note, when it is about this clip and signed by a coordinator that the invite names.

    Raises LocalError for files that can't be read, LimitExceeded, and the errors of open_provenance.
    """
    opened = open_provenance(
        _read(note, PROVENANCE.max_bytes + _SLACK), _read(clip, MAX_CLIP_BYTES), invite.swarm
    )
    if opened.signer not in invite.coordinators:
        raise BadSignature(
            f"the note is signed by {opened.signer}, which is no coordinator of the invite's swarm; get the newest "
            "invite, or don't believe the clip"
        )
    return opened


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise LimitExceeded(f"{path} has {size} bytes; at most {max_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise LocalError(f"{path} can't be read: {error.strerror}; save it again") from error
