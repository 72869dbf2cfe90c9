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
# # Filtering by tenant: the rows that go missing
#
# Many tenants share one store, and a question belongs to one of them. There are three ways to answer it:
#
# 1. **pooled**: rank everybody's chunks, and hope;
# 2. **filtered after**: rank everybody's chunks, then drop those of other tenants from the ten that came;
# 3. **filtered before**: rank the tenant's own chunks, which is what pgrecall does.
#
# This notebook measures what each loses, on the same chunks, questions and model.

# %%
import evaldata
import pandas as pd
from IPython.display import SVG

import pgrecall
from pgrecall.evaluation import CoreRetriever, Evaluations, evaluate
from pgrecall.evaluation.charts import svg
from pgrecall.evaluation.comparison import compare

data = evaldata.load()
print(data)

# %% [markdown]
# Each tenant's chunks go into a collection of its own, and everybody's into one pool. Ids stay what they are.

# %%
db = pgrecall.connect()
pool = db.tenant("notebook-pool").vectors("filtering", evaldata.SPACE, embed=evaldata.embed)
for tenant, chunks in data.chunks.items():
    db.tenant(f"notebook-{tenant}").vectors("filtering", evaldata.SPACE, embed=evaldata.embed).upsert(chunks)
    pool.upsert(chunks)
owner = {chunk.id: tenant for tenant, chunks in data.chunks.items() for chunk in chunks}
pool.count()

# %% [markdown]
# The questions are asked three times, and every answer is kept with its measures.

# %%
kept = Evaluations(db.tenant("notebook-evaluation"))
evaldata.embed([query.text for query in data.questions.queries])  # cached, so that latencies are the search's


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
# Pooled answers hold rows of other tenants. Dropping them afterwards leaves answers short, some of them empty; it can't
# bring back the tenant's own rows that the others pushed out. Filtering before ranking loses nothing.


# %%
def rows_left(figure):
    panel = figure.subplots()
    depths = range(11)
    for name, colour in (("filtered after", "#d97706"), ("filtered before", "#2563eb")):
        sizes = [len(result.retrieved) for result in runs[name].results]
        panel.bar(
            [d + (0.2 if name == "filtered before" else -0.2) for d in depths],
            [sizes.count(d) for d in depths],
            width=0.4,
            color=colour,
            label=name,
        )
    panel.set_xticks(list(depths))
    panel.set_xlabel("rows in the answer, of ten asked for")
    panel.set_ylabel("questions")
    panel.legend(frameon=False)


SVG(svg(rows_left))

# %% [markdown]
# Is the difference more than chance? Paired by question, with a 95 % interval, and p by sign-flip randomisation.

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
# The mean over questions can hide a tenant. The worst ones, filtered before:

# %%
tenants = runs["filtered before"].summary["tenants"]
worst = sorted(tenants.items(), key=lambda item: item[1]["ndcg@10"])[:5]
pd.DataFrame([{"tenant": t, "questions": m["queries"], "nDCG@10": round(m["ndcg@10"], 3)} for t, m in worst])

# %%
for tenant in [*(f"notebook-{t}" for t in data.chunks), "notebook-pool", "notebook-evaluation"]:
    db.delete_tenant(tenant)
    db.create_tenant(tenant, reopen=True)  # so that this notebook runs again
db.close()
