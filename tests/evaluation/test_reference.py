"""The figures that others got on the same data with the same model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pgrecall.evaluation import CoreRetriever, evaluate

pytest.importorskip("tokenizers", reason="the demo group is not installed")

SHARED = Path(os.environ.get("PGRECALL_EVAL_DATA", "nowhere"))


@pytest.mark.slow("embeds 2,000 texts")
def test_squad_gives_the_reference_figures(server, db, tenant_id, monkeypatch, tmp_path):
    """nDCG@10 .850 where each question is asked of its tenant, .807 pooled; no foreign row in the first."""
    if not (SHARED / "squad").is_dir():
        pytest.skip("PGRECALL_EVAL_DATA names no folder with the SQuAD data")
    if server.version != 18:
        pytest.skip("the figures are the model's and the search's, measured once: embedding takes a minute")
    import evaldata

    monkeypatch.setenv("PGRECALL_EVAL_DATA", str(SHARED))
    monkeypatch.setattr(evaldata, "QUERIES", 10_000)
    monkeypatch.setattr(evaldata, "QUICK", False)
    data = evaldata.load()
    pool = db.tenant(f"{tenant_id}-pool").vectors("squad", evaldata.SPACE, embed=evaldata.embed)
    for title, chunks in data.chunks.items():
        pool.upsert(chunks)
        db.tenant(f"{tenant_id}-{title}").vectors("squad", evaldata.SPACE, embed=evaldata.embed).upsert(chunks)
    evaldata.embed([query.text for query in data.questions.queries])
    owner = {chunk.id: title for title, chunks in data.chunks.items() for chunk in chunks}

    def own(query, k):
        store = db.tenant(f"{tenant_id}-{query.tenant}").vectors("squad", evaldata.SPACE)
        return [h.chunk_id for h in store.query(evaldata.embed([query.text])[0], k)]

    apart = evaluate(own, data.questions, top_k=10, concurrency=2, tenant_of=owner.get)
    pooled = evaluate(CoreRetriever(pool, evaldata.embed), data.questions, top_k=10, tenant_of=owner.get)
    assert len(data.questions.queries) == 3757 and apart.summary["failed"] == pooled.summary["failed"] == 0
    assert apart.mean("ndcg@10") == pytest.approx(0.850, abs=0.005)
    assert pooled.mean("ndcg@10") == pytest.approx(0.807, abs=0.005)
    assert apart.summary["foreign_rows"] == 0
    assert pooled.summary["foreign_rows"] / pooled.summary["rows"] == pytest.approx(0.304, abs=0.005)
