"""A version of ragas' ``@experiment`` that keeps failed rows, and the order of the dataset.

ragas itself prints a warning for a row that fails and drops it, and appends rows as they finish.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any

from pgrecall.evaluation.ragas_metrics import import_ragas

#: How many rows run at the same time.
CONCURRENCY = 16


def experiment(
    experiment_model: Any = None, backend: Any = None, name_prefix: str = "", *, concurrency: int = CONCURRENCY
) -> Callable[[Callable[..., Any]], Any]:
    """Like ``ragas.experiment``: the decorated function's ``arun(dataset)`` returns a ragas ``Experiment``.

    The function takes a row and returns a row (a mapping, or an `experiment_model`), or None to skip it. A row that
    raises becomes ``{**row, "error": "ValueError: …"}``; the experiment then has plain rows, because this one does not
    fit an `experiment_model`. `concurrency` is how many rows run at the same time (default: 16).
    """
    import_ragas()
    from ragas.experiment import Experiment, ExperimentWrapper

    class Wrapped(ExperimentWrapper):
        """An experiment that keeps every row."""

        async def arun(
            self, dataset: Any, name: str | None = None, backend: Any = None, *args: Any, **kwargs: Any
        ) -> Any:
            """Run every row, and save the results in the order of the dataset."""
            if name is None:
                from ragas.utils import memorable_names

                name = memorable_names.generate_unique_name()  # type: ignore[no-untyped-call]
            chosen = backend or self.default_backend
            rows = list(dataset)
            limit = asyncio.Semaphore(concurrency)

            async def one(row: Any) -> Any:
                async with limit:
                    try:
                        return await self(row, *args, **kwargs)
                    except Exception as exc:  # noqa: BLE001 (any error of a row becomes its result)
                        return {**_plain(row), "error": f"{type(exc).__name__}: {exc}"}

            found = [made for made in await asyncio.gather(*map(one, rows)) if made is not None]
            model = self.experiment_model
            if model is not None and not all(isinstance(made, model) for made in found):
                model, found = None, [_plain(made) for made in found]
            made = Experiment(
                name=f"{self.name_prefix}-{name}" if self.name_prefix else name,
                data_model=model,
                backend=Experiment._resolve_backend(chosen) if chosen else dataset.backend,
                data=found,
            )
            await asyncio.to_thread(made.save)
            return made

    def decorate(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        async def called(*args: Any, **kwargs: Any) -> Any:
            made = function(*args, **kwargs)
            return await made if inspect.isawaitable(made) else made

        return Wrapped(called, experiment_model, backend, name_prefix)

    return decorate


def _plain(row: Any) -> dict[str, Any]:
    dumped = row.model_dump() if hasattr(row, "model_dump") else row
    return dict(dumped)
