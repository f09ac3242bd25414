"""Who waits for a clip of their own prompt, and how far each is. Owns order and bounds; pure, memory is bounded.

Clients are told apart by address for the limits alone; an address leaves with its wish and is never shown.
"""

from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct, structs

WishPhase = Literal["waiting", "running", "done", "failed"]


class Wish(Struct, frozen=True, kw_only=True):
    """A prompt on its way to a clip."""

    wish_id: str
    prompt: str
    seed: int
    release: int
    asked_at_ms: int
    phase: WishPhase = "waiting"
    step: int = 0
    total: int = 0
    expert_by_step: list[int] = []
    """The most weighted expert of every denoising step so far."""
    sentence: str = ""
    """Why it failed."""
    position: int = 0
    """How many are served before it."""


@dataclass(frozen=True, kw_only=True)
class TryRules:
    """The bounds. All numbers are at least 1."""

    max_waiting: int
    max_per_client: int
    """Waiting or running at once."""
    kept: int
    """Finished wishes that are remembered, oldest forgotten first."""


@dataclass(frozen=True)
class Turned:
    """Not now, and why."""

    sentence: str
    retry_after_s: int


@dataclass(kw_only=True)
class TryQueue:
    """First come, first served."""

    rules: TryRules
    _wishes: dict[str, Wish] = field(default_factory=dict)
    _clients: dict[str, str] = field(default_factory=dict)
    """Client by unfinished wish."""
    forgotten: list[str] = field(default_factory=list)
    """Wishes whose files can go; whoever removes them empties this."""

    def ask(self, wish: Wish, client: str) -> Turned | None:
        """Put a wish at the end; None when it was taken."""
        waiting = sum(other.phase == "waiting" for other in self._wishes.values())
        if waiting >= self.rules.max_waiting:
            return Turned(f"{waiting} people are waiting already; come back in a minute", 60)
        if sum(other == client for other in self._clients.values()) >= self.rules.max_per_client:
            return Turned("your last clip is still being made; wait for it first", 10)
        self._wishes[wish.wish_id] = wish
        self._clients[wish.wish_id] = client
        return None

    def remember(self, wish: Wish) -> None:
        """A wish that was finished before this program started."""
        self._wishes[wish.wish_id] = wish
        self._forget_oldest()

    def get(self, wish_id: str) -> Wish | None:
        """A wish with its place in the queue."""
        wish = self._wishes.get(wish_id)
        if wish is None or wish.phase != "waiting":
            return wish
        before = 0
        for other in self._wishes.values():
            if other.wish_id == wish_id:
                break
            before += other.phase in ("waiting", "running")
        return structs.replace(wish, position=before)

    def begin(self) -> Wish | None:
        """Start the wish that waited longest."""
        for wish in self._wishes.values():
            if wish.phase == "waiting":
                return self._put(structs.replace(wish, phase="running"))
        return None

    def step(self, wish_id: str, step: int, total: int, expert: int | None) -> None:
        """One denoising step was done. Step 1 begins anew, as after a worker that died."""
        wish = self._wishes[wish_id]
        before = wish.expert_by_step[: step - 1]
        picked = before if expert is None else [*before, expert]
        self._put(structs.replace(wish, step=step, total=total, expert_by_step=picked))

    def finish(self, wish_id: str, sentence: str = "") -> None:
        """The clip lies there; with a sentence, it never will."""
        self._clients.pop(wish_id, None)
        phase: WishPhase = "failed" if sentence else "done"
        self._put(structs.replace(self._wishes[wish_id], phase=phase, sentence=sentence))
        self._forget_oldest()

    def _put(self, wish: Wish) -> Wish:
        self._wishes[wish.wish_id] = wish
        return wish

    def _forget_oldest(self) -> None:
        finished = [
            wish.wish_id for wish in self._wishes.values() if wish.phase in ("done", "failed")
        ]
        for wish_id in finished[: -self.rules.kept]:
            del self._wishes[wish_id]
            self.forgotten.append(wish_id)
