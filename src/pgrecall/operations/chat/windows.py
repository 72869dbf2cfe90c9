"""Selects the messages that fit a model's context: the newest whole turns, and tool calls only with their results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TypeAlias

from pgrecall.errors import InvalidInput
from pgrecall.messages import Message

CountTokens: TypeAlias = Callable[[Message], int]


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of a window, in messages and tokens; None means no limit."""

    messages: int | None
    tokens: int | None
    count: CountTokens | None

    def cost(self, message: Message) -> int:
        """The message's tokens, or 0 if tokens are not limited. Raises InvalidInput if the count is invalid."""
        if self.tokens is None or self.count is None:
            return 0
        found = self.count(message)
        if isinstance(found, bool) or not isinstance(found, int) or found < 0:
            raise InvalidInput(f"count_tokens returned {found!r:.60} for a message; expected its number of tokens")
        return found

    def fits(self, messages: int, tokens: int) -> bool:
        """Whether this many messages and tokens fit."""
        return (self.messages is None or messages <= self.messages) and (self.tokens is None or tokens <= self.tokens)

    def without(self, messages: int, tokens: int) -> Budget:
        """The rest of the budget after this many messages and tokens."""
        return Budget(
            None if self.messages is None else self.messages - messages,
            None if self.tokens is None else self.tokens - tokens,
            self.count,
        )


def leading(messages: Iterable[Message]) -> list[Message]:
    """The system and developer messages at the start of a chat."""
    return list(takewhile(lambda message: message.role in ("system", "developer"), messages))


def reserve(system: Sequence[Message], budget: Budget) -> Budget:
    """The budget that the leading system messages leave. Raises InvalidInput if they do not fit."""
    tokens = sum(budget.cost(message) for message in system)
    if not budget.fits(len(system), tokens):
        raise InvalidInput(
            f"the chat's leading system messages ({len(system)} messages, {tokens} tokens) exceed the window; enlarge "
            "it, or pass keep_system=False"
        )
    return budget.without(len(system), tokens)


def newest(backwards: Iterable[Message], budget: Budget) -> list[Message]:
    """The newest messages that fit, oldest first. `backwards` yields messages newest first, and is read lazily.

    A turn is a user's message and all that follow it. Only whole turns are kept. If not even the newest turn fits, its
    last messages are kept, and an assistant's tool calls only together with their results.
    """
    kept: list[Message] = []
    turn: list[tuple[Message, int]] = []
    tokens = 0
    for message in backwards:
        turn.append((message, budget.cost(message)))
        tokens += turn[-1][1]
        if not budget.fits(len(turn), tokens):
            break
        if message.role == "user":
            kept += [taken for taken, _ in turn]
            budget = budget.without(len(turn), tokens)
            turn, tokens = [], 0
    else:
        # Messages before the first user message are a turn, too, and so is a chat without user messages.
        kept += [taken for taken, _ in turn]
        turn = []
    return _without_orphans(kept[::-1] or _end(turn, budget))


def _end(backwards: Sequence[tuple[Message, int]], budget: Budget) -> list[Message]:
    kept: list[Message] = []
    group: list[Message] = []
    tokens = 0
    for message, cost in backwards:
        group.append(message)
        tokens += cost
        if not budget.fits(len(kept) + len(group), tokens):
            break
        if not _answers(message):
            kept, group = kept + group, []
    return kept[::-1]


def _without_orphans(messages: list[Message]) -> list[Message]:
    """Drop leading tool results whose calls are missing, because models reject them."""
    at = next((at for at, message in enumerate(messages) if not _answers(message)), len(messages))
    return messages[at:]


def _answers(message: Message) -> bool:
    return message.role in ("tool", "function")
