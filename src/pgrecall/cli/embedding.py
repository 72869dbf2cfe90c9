"""`--embed package.module:callable`: the embedding function of every command that embeds text."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from pgrecall.errors import InvalidInput

if TYPE_CHECKING:
    from pgrecall.types import EmbedSpace

EmbedOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--embed",
        envvar="PGRECALL_EMBED",
        metavar="MODULE:CALLABLE",
        show_default=False,
        help="The embedding function: takes a list of texts, returns their vectors; sync or async. "
        "Modules of the current folder are found too.",
    ),
]

ConcurrencyOption: TypeAlias = Annotated[
    int, typer.Option("--concurrency", help="Concurrent calls of --embed; a synchronous function is called in threads.")
]

EXAMPLE = """this command embeds text, but no embedding function was given. For example, write a file my_models.py:
    def embed(texts):
        return model.encode(texts)
and pass --embed my_models:embed, or set it once: export PGRECALL_EMBED=my_models:embed"""


def load_embed(name: str | None) -> Callable[[list[str]], Any]:
    """The function that `name` ("package.module:callable") refers to, wrapped as a synchronous one.

    Raises: InvalidInput, also if the function itself raises.
    """
    if not name:
        raise InvalidInput(EXAMPLE)
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise InvalidInput(f"--embed is {name!r}; expected package.module:callable, such as my_models:embed")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        function: Any = functools.reduce(getattr, path.split("."), importlib.import_module(module_name))
    except Exception as exc:  # a user's module may raise anything
        raise InvalidInput(f"--embed {name} could not be loaded: {type(exc).__name__}: {exc}") from exc
    if not callable(function):
        raise InvalidInput(f"--embed {name} is {type(function).__name__}; expected a function")
    loop = _background_loop()

    def embed(texts: list[str]) -> Any:
        try:
            vectors = function(texts)
            if inspect.isawaitable(vectors):
                vectors = asyncio.run_coroutine_threadsafe(_awaited(vectors), loop).result()
            found = len(vectors)
        except Exception as exc:  # as above
            raise InvalidInput(f"--embed {name} failed: {type(exc).__name__}: {exc}") from exc
        if found != len(texts):
            raise InvalidInput(f"--embed {name} returned {found} vectors for {len(texts)} texts")
        return vectors

    return embed


def space_of(name: str | None, function: Callable[[list[str]], Any]) -> EmbedSpace:
    """The space of a new collection, named after --embed, with the dimensions of its vectors."""
    from pgrecall.types import EmbedSpace

    module, _, called = str(name).partition(":")
    return EmbedSpace(module, called, len(function(["dimensions"])[0]))


def _background_loop() -> asyncio.AbstractEventLoop:
    """One event loop for the calls of all threads: an asynchronous client's connections belong to its loop."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="pgrecall-embed-loop", daemon=True).start()
    return loop


async def _awaited(vectors: Any) -> Any:
    return await vectors
