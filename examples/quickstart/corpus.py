"""Real text that every machine has: the docstrings of Python's standard library, as two tenants' documents."""

import importlib
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType

from semantic_text_splitter import TextSplitter

from pgrecall import Chunk, Document

# tenant -> topic -> modules. A module that this build of Python lacks is skipped.
TENANTS = {
    "networking": {
        "sockets": "socket ssl select selectors socketserver ipaddress",
        "http": "http.client http.server http.cookies urllib.request urllib.parse urllib.robotparser",
        "mail": "smtplib imaplib email.message email.header email.utils",
        "transfer": "ftplib xmlrpc.client",
        "asyncio": "asyncio.streams asyncio.tasks asyncio.queues asyncio.runners",
    },
    "data": {
        "formats": "json csv struct pickle base64 tomllib",
        "storage": "sqlite3 zlib gzip zipfile",
        "numbers": "decimal fractions statistics",
        "time": "datetime zoneinfo calendar",
        "structures": "collections heapq bisect itertools functools graphlib array dataclasses",
        "text": "re string textwrap",
    },
}
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SPLITTER = TextSplitter(500)  # characters: about 110 tokens, of the 256 that the model reads


def load(tenant: str) -> tuple[list[Document], list[Chunk]]:
    """The documents (one per module) and their chunks; the same on every run of the same Python."""
    documents: list[Document] = []
    chunks: list[Chunk] = []
    for topic, names in TENANTS[tenant].items():
        for name in names.split():
            try:
                module = importlib.import_module(name)
            except ImportError:  # sqlite3, ssl, bz2, lzma … are optional parts of a build
                continue
            metadata = {"package": name.partition(".")[0], "topic": topic, "python": PYTHON}
            # asyncio's pages are named differently: asyncio.streams is documented in asyncio-stream.html.
            page = name.replace("asyncio.", "asyncio-").removesuffix("s") if "asyncio" in name else name
            uri = f"https://docs.python.org/{PYTHON}/library/{page}.html"
            documents.append(Document(name, source="python-stdlib", uri=uri, metadata=metadata))
            pieces = (
                (symbol, f"{heading} — {piece}")
                for symbol, heading, text in _sections(module)
                for piece in SPLITTER.chunks(text)
            )
            for index, (symbol, text) in enumerate(pieces):
                tags = metadata | {"symbol": symbol}
                chunks.append(Chunk(f"{name}#{index}", text, doc_id=name, index=index, metadata=tags))
    return documents, chunks


def _sections(module: ModuleType) -> Iterator[tuple[str, str, str]]:
    """(symbol, heading, text) of the module itself, then of each of its public classes and functions."""
    yield module.__name__, module.__name__, _doc(module)
    seen = {"", "An enumeration."}  # no docstring of its own, or an alias
    for name, item in _public(module):
        doc, symbol = _doc(item), f"{module.__name__}.{name}"
        if doc in seen:
            continue
        seen.add(doc)
        if inspect.isclass(item):
            members = ((n, _unwrapped(m)) for n, m in vars(item).items() if not n.startswith("_"))
            text = "\n\n".join([doc, *(f"{n}{_parameters(m)}: {_doc(m)}" for n, m in members if _doc(m))])
            yield symbol, symbol, text
        else:
            yield symbol, symbol + _parameters(item), doc


def _public(module: ModuleType) -> Iterator[tuple[str, object]]:
    """A module's public classes and functions. Without `__all__`, imported ones are left out (not those of `_ssl`)."""
    listed = getattr(module, "__all__", None)
    for name in list(vars(module) if listed is None else listed):
        item = vars(module).get(name)  # not getattr(): a module's __getattr__ may emit a DeprecationWarning
        if name.startswith("_") or not (inspect.isclass(item) or inspect.isroutine(item)):
            continue
        home = (item.__module__ or "").lstrip("_")
        if home == module.__name__ if listed is None else home != "builtins":
            yield name, item


def _unwrapped(member: object) -> object:
    return getattr(member, "__func__", member)  # of a class method or a static method


def _doc(item: object) -> str:
    """The docstring of a module, class or function; a plain value (`MAXLINE = 65536`) only has that of its type."""
    kinds = (inspect.ismodule, inspect.isclass, inspect.isroutine, inspect.isdatadescriptor)
    return inspect.cleandoc(item.__doc__ or "") if any(kind(item) for kind in kinds) else ""


def _parameters(item: object) -> str:
    """The names of the parameters, if introspection finds them.

    Default values are left out: they may print a memory address, which differs between runs.
    """
    try:
        return f"({', '.join(n for n in inspect.signature(item).parameters if n not in ('self', 'cls'))})"
    except Exception:  # noqa: BLE001 - introspection raises what it likes (3.13: AttributeError for epoll.register)
        return ""
