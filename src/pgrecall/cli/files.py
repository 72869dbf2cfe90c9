"""`pgrecall export` and `pgrecall import`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import IO, Annotated

import typer

from pgrecall.cli.progress import progress
from pgrecall.cli.session import Session, TenantOption, command
from pgrecall.errors import InvalidInput


def register(app: typer.Typer, panel: str) -> None:
    """Add `export`; `import` belongs to the group of that name."""
    command(app, "export", rich_help_panel=panel)(export)


def export(
    session: Session,
    collection: Annotated[str, typer.Argument(show_default=False)],
    tenant: TenantOption,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The file to write. Default: stdout, as with -.", show_default=False
        ),
    ] = None,
) -> None:
    """Write a collection as JSON lines: its documents, chunks, vectors and provenance, exactly as stored.

    The file appears only when it is complete. Exit 1 if the collection does not exist.
    """
    to_stdout = output in (None, "-")
    if output is None and sys.stdout.isatty():
        raise InvalidInput(
            "an export does not go to a terminal by default; name a file with -o FILE, or pass -o - to print it"
        )
    from pgrecall import transfer

    with session.tenant(tenant) as opened:
        lines = transfer.export_lines(opened.vectors(collection))
        info = opened.collection_info(collection)
        total = 0 if info is None else 2 + info.documents + info.chunks
        with progress(session, f"exporting {collection}", total) as done:
            if to_stdout:
                written = _write(lines, sys.stdout.buffer, done)
            else:
                written = _write_file(lines, Path(str(output)), done)
    if not to_stdout:
        data = {"tenant": tenant, "collection": collection, "file": output, "lines": written}
        session.emit(data, f"{collection}: {written - 2:,} documents and chunks written to {output}")


def _write(lines: Iterator[str], file: IO[bytes], done: Callable[[int], None]) -> int:
    written = 0
    for line in lines:
        file.write(line.encode())
        written += 1
        done(written)
    file.flush()
    return written


def _write_file(lines: Iterator[str], path: Path, done: Callable[[int], None]) -> int:
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            written = _write(lines, file, done)
        part.replace(path)
    except OSError as exc:
        raise InvalidInput(f"could not write {path}: {exc.strerror}") from exc
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return written


def import_(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="An export; - reads stdin.", show_default=False)],
    tenant: Annotated[
        str | None,
        typer.Option(
            "--tenant", "-t", help="The tenant to import into. Default: the exported one.", show_default=False
        ),
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection", "-c", help="The collection to import into. Default: the exported one.", show_default=False
        ),
    ] = None,
    commit_every: Annotated[
        int | None,
        typer.Option(metavar="N", help="Commit every N chunks instead of all or nothing.", show_default=False),
    ] = None,
) -> None:
    """Import an export: the same chunks, vectors and settings. Chunks with the same ids are replaced.

    All or nothing, unless --commit-every is given. A collection with vectors of another model is refused (exit 4).
    """
    from pgrecall import transfer

    with _opened(file) as (lines, size):
        first = next(lines, b"")
        header = transfer.read_header(first)
        name = tenant if tenant is not None else header.tenant
        into = collection if collection is not None else header.collection
        with (
            session.tenant(name) as opened,
            progress(session, f"importing {into}", size, bytes_=True) as done,
        ):
            read = _counted(chain([first], lines), done)
            result = transfer.import_lines(opened, read, into, commit_every=commit_every)
    data = {"tenant": name, "collection": into, "written": result.written, "unchanged": result.unchanged}
    session.emit(data, f"{name}/{into}: {result.written:,} chunks written, {result.unchanged:,} unchanged")


@contextmanager
def _opened(file: str) -> Iterator[tuple[Iterator[bytes], int | None]]:
    if file == "-":
        yield iter(sys.stdin.buffer), None
        return
    try:
        path = Path(file)
        opened, size = path.open("rb"), path.stat().st_size
    except OSError as exc:
        raise InvalidInput(f"could not read {file}: {exc.strerror}") from exc
    with opened:
        yield iter(opened), size


def _counted(lines: Iterator[bytes], done: Callable[[int], None]) -> Iterator[bytes]:
    read = 0
    for line in lines:
        read += len(line)
        done(read)
        yield line
