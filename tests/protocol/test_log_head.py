"""Two signed ends of a log can be told apart or not: by every row that both state."""

from hypothesis import given
from hypothesis import strategies as st
from protocol.samples import COORDINATOR, SWARM

from kinoswarm_protocol.envelope import open_envelope, seal
from kinoswarm_protocol.log_head import (
    LOG_HEAD,
    MARK_LEVELS,
    MAX_HEAD_BYTES,
    LogHead,
    Mark,
    marked_rows,
    row_in_doubt,
)

FORK = 1_000


def head(seq: int, history: str = "a", forked_at: int = FORK) -> LogHead:
    """Of a history that leaves `a` at the fork."""

    def digest(row: int) -> str:
        return f"{row:x}{history if row >= forked_at else 'a'}".rjust(64, "0")

    marks = [Mark(seq=row, hash=digest(row)) for row in marked_rows(seq)]
    return LogHead(seq=seq, hash=digest(seq), epoch=1, at_ms=5, marks=marks)


@given(st.integers(1, 2**40), st.integers(1, 2**40))
def test_ends_of_one_history_never_conflict(one: int, other: int) -> None:
    assert row_in_doubt(head(one), head(other)) is None


@given(st.integers(1, 2**40), st.integers(1, 5))
def test_ends_that_lie_near_each_other_and_behind_a_fork_conflict(end: int, apart: int) -> None:
    before = (end >> MARK_LEVELS[0]) << MARK_LEVELS[0]
    one, other = head(end, "b", forked_at=1), head(end, "c", forked_at=1)
    assert row_in_doubt(one, other) is not None
    if before and (end + apart) >> MARK_LEVELS[0] == end >> MARK_LEVELS[0]:
        later = head(end + apart, "c", forked_at=1)
        assert row_in_doubt(one, later) in one.rows()


def test_what_was_the_same_before_the_fork_is_no_conflict() -> None:
    assert row_in_doubt(head(FORK - 1), head(FORK + 3, "b")) is None
    assert row_in_doubt(head(1_030), head(5_000, "b")) is None, "they state no row in common"
    assert row_in_doubt(head(2_100), head(3_000, "b")) == 2_048


@given(st.integers(1, 2**53))
def test_a_signed_head_fits_and_marks_lie_before_it(end: int) -> None:
    raw = seal(COORDINATOR, LOG_HEAD, SWARM, head(end))
    assert len(raw) <= MAX_HEAD_BYTES
    assert open_envelope(raw, LOG_HEAD, SWARM).body == head(end)
    assert all(0 < row < end for row in marked_rows(end))
