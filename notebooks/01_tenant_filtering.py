# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Filtering by tenant: which rows go missing
#
# Many tenants share one store, and each question belongs to one of them. There are three ways to answer it:
#
# 1. **pooled**: rank the chunks of all tenants, without a filter;
# 2. **filtered after**: rank the chunks of all tenants, then drop those of other tenants from the top ten;
# 3. **filtered before**: rank only the tenant's own chunks, as pgrecall does.
#
# This notebook measures what each way loses, on the same chunks, questions and model.

# %%
import evaldata
import pandas as pd

import pgrecall
from pgrecall.evaluation import CoreRetriever, Evaluations, compare, evaluate

data = evaldata.load()
print(data)

# %% [markdown]
# Each tenant's chunks go into a collection of its own, and all chunks into one pool, with the same ids.

# %%
db = pgrecall.connect()
pool = db.tenant("notebook-pool").vectors("filtering", evaldata.SPACE, embed=evaldata.embed)
pool.upsert(data.every)
for tenant, chunks in data.chunks.items():
    db.tenant(f"notebook-{tenant}").vectors("filtering", evaldata.SPACE, embed=evaldata.embed).upsert(chunks)
owner = {chunk.id: tenant for tenant, chunks in data.chunks.items() for chunk in chunks}
pool.count()

# %% [markdown]
# Each question is asked in all three ways, and every result is stored with its metrics.

# %%
kept = Evaluations(db.tenant("notebook-evaluation"))


def own(tenant):
    return db.tenant(f"notebook-{tenant}").vectors("filtering", evaldata.SPACE)


def after(query, k):
    found = pool.query(evaldata.embed([query.text])[0], k)
    return [(hit.chunk_id, hit.score) for hit in found if owner[hit.chunk_id] == query.tenant]


def before(query, k):
    return [(hit.chunk_id, hit.score) for hit in own(query.tenant).query(evaldata.embed([query.text])[0], k)]


ways = {
    "pooled": CoreRetriever(pool, evaldata.embed),
    "filtered after": after,
    "filtered before": before,
}
runs = {
    name: evaluate(way, data.questions, store=kept, label=name, top_k=(1, 3, 5, 10), tenant_of=owner.get)
    for name, way in ways.items()
}

# %%
rows = []
for name, run in runs.items():
    sizes = [len(result.retrieved) for result in run.results]
    rows.append(
        {
            "way": name,
            "nDCG@10": run.mean("ndcg@10"),
            "recall@10": run.mean("recall@10"),
            "MRR@10": run.mean("mrr@10"),
            "rows of others": run.summary["foreign_rows"],
            "share": run.summary["foreign_rows"] / max(1, run.summary["rows"]),
            "no row at all": sizes.count(0),
            "fewer than five": sum(size < 5 for size in sizes),
        }
    )
pd.DataFrame(rows).set_index("way").style.format(dict.fromkeys(("nDCG@10", "recall@10", "MRR@10", "share"), "{:.3f}"))

# %% [markdown]
# Pooled results contain rows of other tenants. Dropping these afterwards leaves short results, some of them empty, and
# can't bring back the tenant's own rows that they displaced. Filtering before ranking loses nothing: a result is short
# only if the tenant has no more chunks.


# %%
def rows_left(figure):
    panel = figure.subplots()
    depths = range(11)
    for name, side, colour in (("filtered after", -0.2, "#d97706"), ("filtered before", 0.2, "#2563eb")):
        sizes = [len(result.retrieved) for result in runs[name].results]
        bars = panel.bar([d + side for d in depths], [sizes.count(d) for d in depths], 0.4, color=colour, label=name)
        panel.bar_label(bars, [f"{sizes.count(d):,}" if sizes.count(d) else "" for d in depths], size=7, padding=1)
    panel.set_xticks(list(depths))
    panel.set_xlabel("rows in the answer, of ten asked for")
    panel.set_ylabel("questions")
    panel.grid(visible=False, axis="x")
    panel.legend(frameon=False, loc="upper left")


evaldata.show(rows_left)

# %% [markdown]
# Is the difference significant? It is paired by question, with a 95 % interval and p by sign-flip randomization.

# %%
made = compare(runs["pooled"], runs["filtered before"], ["ndcg@10", "recall@10", "mrr@10"])
pd.DataFrame(
    {
        name: {
            "difference": f"{d.interval.mean:+.4f}",
            "95 % interval": f"{d.interval.low:+.4f} … {d.interval.high:+.4f}",
            "p": f"{d.p:.4f}",
            "better": d.better,
            "worse": d.worse,
        }
        for name, d in made.differences.items()
    }
).T

# %% [markdown]
# A mean over all questions can hide a tenant. Each point is a tenant: x is the quality from the pool, y the quality
# from its own chunks, and the size is the number of its questions.


# %%
def tenants(figure):
    panel = figure.subplots()
    before, pooled = (runs[name].summary["tenants"] for name in ("filtered before", "pooled"))
    x, y = ([found[tenant]["ndcg@10"] for tenant in before] for found in (pooled, before))
    sizes = [6 + 2 * before[tenant]["queries"] for tenant in before]
    panel.scatter(x, y, s=sizes, color="#2563eb", alpha=0.6, lw=0)
    low = min([*x, *y]) - 0.02
    panel.plot([low, 1], [low, 1], color="#94a3b8", lw=1, ls="--")
    panel.annotate("better when filtered", (low + 0.02, 0.97), size=8, color="#475569")
    panel.set_xlabel("nDCG@10, pooled")
    panel.set_ylabel("nDCG@10, filtered before")
    panel.set_aspect("equal")


evaldata.show(tenants, width=5, height=4.4)

# %%
worst = sorted(runs["filtered before"].summary["tenants"].items(), key=lambda item: item[1]["ndcg@10"])[:5]
pd.DataFrame([{"tenant": t, "questions": m["queries"], "nDCG@10": round(m["ndcg@10"], 3)} for t, m in worst])

# %%
evaldata.clean(db, *(f"notebook-{t}" for t in data.chunks), "notebook-pool", "notebook-evaluation")
db.close()
