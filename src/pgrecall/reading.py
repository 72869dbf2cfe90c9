"""Reads files as documents and passages: text, Markdown and JSON lines. semantic-text-splitter splits them.

Splitting needs the extra `ingest`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgrecall.errors import ConfigurationError, InvalidInput
from pgrecall.extras import install_extra
from pgrecall.types import Chunk, Document, Metadata

#: The kinds of files, by the end of their names.
TEXT, MARKDOWN, LINES = (".txt", ".text"), (".md", ".markdown"), (".jsonl", ".ndjson")
READ = (*TEXT, *MARKDOWN, *LINES)
#: Maximum characters of a passage: about 220 tokens of English, of the 256 that small models read.
PASSAGE = 1_000


@dataclass(frozen=True, slots=True)
class Source:
    """A document that was read; it is split only when its passages are requested."""

    document: Document
    text: str
    markdown: bool = False

    def passages(self, splitters: Splitters, metadata: Metadata) -> list[Chunk]:
        """Its chunks, with the ids `id#0`, `id#1`, …, each with `metadata` and that of the document, which wins."""
        about = {**metadata, **self.document.metadata}
        pieces = splitters.split(self.text, markdown=self.markdown)
        name = self.document.id
        return [Chunk(f"{name}#{n}", piece, None, name, n, about) for n, piece in enumerate(pieces)]


class Splitters:
    """Splits at the largest boundary that fits: headings and blocks of Markdown, paragraphs, sentences, words."""

    def __init__(self, characters: int = PASSAGE) -> None:
        """`characters` is the maximum length of a passage. Raises ConfigurationError if the extra is missing."""
        if characters < 1:
            raise InvalidInput(f"passages have {characters} characters; expected 1 or more")
        try:
            from semantic_text_splitter import MarkdownSplitter, TextSplitter
        except ImportError as exc:
            raise ConfigurationError(
                f"splitting needs a package that is missing: {exc}; {install_extra('ingest')}"
            ) from exc
        self.characters = characters
        self._text, self._markdown = TextSplitter(characters), MarkdownSplitter(characters)

    def split(self, text: str, *, markdown: bool) -> list[str]:
        """The passages of a text, in order."""
        return list((self._markdown if markdown else self._text).chunks(text))


def files(paths: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Every file to read, with its name: its path below the given folder, or the file's own name.

    A folder yields all files whose names end in one of READ, at any depth, without hidden ones.

    Raises:
        InvalidInput: A path does not exist, or a file is of another kind.
    """
    for path in paths:
        if path.is_dir():
            for found in sorted(path.rglob("*")):
                below = found.relative_to(path)
                hidden = any(part.startswith(".") for part in below.parts)
                if found.is_file() and not hidden and found.suffix.lower() in READ:
                    yield below.as_posix(), found
        elif not path.exists():
            raise InvalidInput(f"{path} does not exist")
        elif path.suffix.lower() not in READ:
            raise InvalidInput(
                f"{path} is not of a supported kind; expected a folder, or a file that ends in {', '.join(READ)}"
            )
        else:
            yield path.name, path


def sources(name: str, path: Path, passage: int = PASSAGE) -> Iterator[Source]:
    """The documents of one file: the file itself, or each line of a JSON lines file.

    A line is an object with `text` and, optionally, `id` (default: the file's name and the line number), `uri` and
    `metadata`. The content hash covers the text, the metadata and the passage size, so that a change of any of them
    is noticed.

    Raises:
        InvalidInput: A line can't be read; the message names the file and the line.
    """
    uri = path.resolve().as_uri()
    if path.suffix.lower() not in LINES:
        whole = _text(path)
        digest = _digest(whole, {}, passage)
        yield Source(Document(name, name, uri, digest), whole, path.suffix.lower() in MARKDOWN)
        return
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        found = _object(line, where)
        text: Any = found.get("text")
        metadata: Any = found.get("metadata") or {}
        if not isinstance(text, str):
            raise InvalidInput(f'{where}: "text" is {type(text).__name__}; expected a string')
        if not isinstance(metadata, dict):
            raise InvalidInput(f'{where}: "metadata" is {type(metadata).__name__}; expected an object')
        own, at = found.get("id", f"{name}#{number}"), found.get("uri", uri)
        if not isinstance(own, str | int) or isinstance(own, bool) or not isinstance(at, str):
            raise InvalidInput(f'{where}: "id" is {own!r:.40} and "uri" is {at!r:.40}; expected strings')
        yield Source(Document(str(own), name, at, _digest(text, metadata, passage), metadata), text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        line = path.read_bytes()[: exc.start].count(b"\n") + 1
        raise InvalidInput(f"{path}, line {line}: not UTF-8 ({exc.reason}); convert the file to UTF-8") from exc
    except OSError as exc:
        raise InvalidInput(f"{path} can't be read: {exc.strerror}") from exc


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as exc:
        raise InvalidInput(f"{where}: not JSON ({exc})") from exc
    if not isinstance(found, dict):
        raise InvalidInput(f"{where}: {type(found).__name__}; expected an object with a text")
    return found


def _digest(text: str, metadata: Metadata, passage: int) -> str:
    about = json.dumps([passage, metadata], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(f"{about}\n{text}".encode(errors="surrogatepass")).hexdigest()
