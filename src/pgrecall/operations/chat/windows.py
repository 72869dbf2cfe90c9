"""Which messages of a chat fit into a model's context: the newest whole turns, no tool call without its results."""

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
    """How many messages may be taken, and how many tokens; None is any number."""

    messages: int | None
    tokens: int | None
    count: CountTokens | None

    def cost(self, message: Message) -> int:
        """A message's tokens, 0 where they do not matter. Raises InvalidInput: the counter gives no number."""
        if self.tokens is None or self.count is None:
            return 0
        found = self.count(message)
        if isinstance(found, bool) or not isinstance(found, int) or found < 0:
            raise InvalidInput(f"count_tokens returned {found!r:.60} for a message; expected its number of tokens")
        return found

    def fits(self, messages: int, tokens: int) -> bool:
        """Whether so many can be taken."""
        return (self.messages is None or messages <= self.messages) and (self.tokens is None or tokens <= self.tokens)

    def without(self, messages: int, tokens: int) -> Budget:
        """What is left when so many were taken."""
        return Budget(
            None if self.messages is None else self.messages - messages,
            None if self.tokens is None else self.tokens - tokens,
            self.count,
        )


def leading(messages: Iterable[Message]) -> list[Message]:
    """The instructions that a chat begins with."""
    return list(takewhile(lambda message: message.role in ("system", "developer"), messages))


def reserve(system: Sequence[Message], budget: Budget) -> Budget:
    """What is left beside the instructions. Raises InvalidInput where they alone are too many."""
    tokens = sum(budget.cost(message) for message in system)
    if not budget.fits(len(system), tokens):
        raise InvalidInput(
            f"the chat's leading system messages alone are {len(system)} messages and {tokens} tokens, more than the "
            "window holds; make it larger, or pass keep_system=False"
        )
    return budget.without(len(system), tokens)


def newest(backwards: Iterable[Message], budget: Budget) -> list[Message]:
    """The newest messages that fit, oldest first; `backwards` gives them newest first and is read as far as needed.

    Whole turns are kept, a turn being a user's message with all that follows it. Where not even the newest turn fits
    its end is taken, message by message, an assistant's tool calls always together with their results.
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
        # What precedes the first user's message is a turn too; so is a chat without one.
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
    """Without results at the beginning, whose calls are not there: models refuse them."""
    at = next((at for at, message in enumerate(messages) if not _answers(message)), len(messages))
    return messages[at:]


def _answers(message: Message) -> bool:
    return message.role in ("tool", "function")
