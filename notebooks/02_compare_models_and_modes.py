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
# # Models and modes, side by side
#
# Which model is best? Dense, sparse or hybrid search? The nearest results or diverse ones? It depends on the texts and
# the questions, so a public benchmark can't tell. This notebook runs the same questions on the same chunks in every
# way, and says which differences are significant.

# %%
import evaldata
import pandas as pd

import pgrecall
from pgrecall import ReciprocalRank, Weighted
from pgrecall.evaluation import Evaluations, compare, evaluate, sweep
from pgrecall.evaluation.charts import COLOURS, metric_curves

data = evaldata.load()
questions = data.pooled
print(data)

# %% [markdown]
# ## The same chunks in three spaces
#
# A collection holds vectors of one space: a provider, model, dimension and distance. The same chunks with the same ids
# go into three collections, so that the same judgements apply to all. The models run locally, without a network:
#
# - **MiniLM**: all-MiniLM-L6-v2, 384 dims, a small sentence transformer;
# - **first 128**: its first 128 dims, at a third of the memory. The model was not trained for truncation;
# - **letters**: not a trained model, but the text's character n-grams (3 to 5 letters), hashed into 512 dims.

# %%
db = pgrecall.connect()
tenant = db.tenant("notebook-models")
kept = Evaluations(tenant)
models = {
    "MiniLM": (evaldata.SPACE, evaldata.embed),
    "first 128": (evaldata.CUT, evaldata.cut),
    "letters": (evaldata.LETTERS, evaldata.letters),
}
stores = {}
for name, (space, embed) in models.items():
    stores[name] = tenant.vectors(name, space, embed=embed, text_config="english")
    stores[name].upsert(data.every)
pd.DataFrame([{"collection": c.name, "space": str(c.space), "chunks": c.chunks} for c in tenant.list_collections()])

# %%
DEPTHS = (1, 3, 5, 10)


def run(model, label, **options):
    return evaluate(stores[model], questions, store=kept, embed=models[model][1], label=label, top_k=DEPTHS, **options)


def table(runs):
    rows = []
    for name, made in runs.items():
        ndcg, latency = made.summary["metrics"]["ndcg@10"], made.summary["latency"]
        rows.append(
            {
                "": name,
                "nDCG@10": f"{ndcg['mean']:.3f}",
                "95 % interval": f"{ndcg['low']:.3f} – {ndcg['high']:.3f}",
                "recall@10": f"{made.mean('recall@10'):.3f}",
                "MRR@10": f"{made.mean('mrr@10'):.3f}",
                "empty": made.summary["empty"],
                "search, p50 ms": f"{latency['search']['p50']:.1f}",
            }
        )
    return pd.DataFrame(rows).set_index("")


by_model = {name: run(name, name) for name in models}
table(by_model)

# %%
evaldata.show(metric_curves(list(by_model.values())), width=10, height=3.2)

# %% [markdown]
# The intervals of two models can overlap although one is clearly better, because both fail on the same hard questions.
# The paired difference, question by question, shows it.

# %%
against = {name: compare(by_model["MiniLM"], by_model[name]) for name in ("first 128", "letters")}
evaldata.show(evaldata.differences(against, "ndcg@10", "MiniLM"), height=1.9)

# %% [markdown]
# A collection refuses vectors of another model, because distances between vectors of two models are meaningless.

# %%
try:
    tenant.vectors("MiniLM", evaldata.CUT).query(evaldata.cut(["any question"])[0])
except pgrecall.EmbedSpaceMismatch as refusal:
    print(f"{type(refusal).__name__}: {refusal}")

# %% [markdown]
# ## Dense, sparse, hybrid, MMR
#
# One model, searched by vectors ("dense"), by words ("sparse"), by both, fused by scores or by ranks, and with maximal
# marginal relevance (MMR), which trades relevance for diversity.

# %%
ways = {
    "dense": {},
    "sparse": {"mode": "sparse"},
    "hybrid, weighted": {"mode": "hybrid", "fusion": Weighted()},
    "hybrid, ranks": {"mode": "hybrid", "fusion": ReciprocalRank()},
    "MMR, λ 0.7": {"mmr": {"lambda_mult": 0.7}},
}
by_mode = {name: run("MiniLM", name, **options) for name, options in ways.items()}
table(by_mode)

# %%
against = {name: compare(by_mode["dense"], by_mode[name]) for name in ways if name != "dense"}
evaldata.show(evaldata.differences(against, "ndcg@10", "dense"), height=2.6)

# %% [markdown]
# Each of these questions has one right paragraph, so diversity can only cost here: these judgements can't reward
# several different answers, which is the purpose of MMR.
#
# Which questions changed most from dense to hybrid? Their ids and nDCG@10:

# %%
moved = against["hybrid, weighted"]
pd.DataFrame(
    [
        {"question": m.query_id, "dense": round(m.before, 3), "hybrid": round(m.after, 3)}
        for m in (*moved.improvements[:4], *moved.regressions[:4])
    ]
)

# %% [markdown]
# ## Which weight for each?
#
# `alpha` is the weight of the vector in a fusion by scores: 0 is only words, 1 only the vector. The poorer the model,
# the more the words help.

# %%
ALPHAS = [0.0, 0.25, 0.5, 0.75, 1.0]
swept = {
    name: sweep(store, questions, {"alpha": ALPHAS}, metric="ndcg@10", embed=models[name][1], store=kept, label=name)
    for name, store in stores.items()
}


def shares(figure):
    panel = figure.subplots()
    for (name, points), colour in zip(swept.items(), COLOURS, strict=False):
        means = [point.run.summary["metrics"]["ndcg@10"] for point in points]
        panel.plot(ALPHAS, [m["mean"] for m in means], marker="o", markersize=4, color=colour, label=name)
        panel.fill_between(ALPHAS, [m["low"] for m in means], [m["high"] for m in means], color=colour, alpha=0.12)
        best = max(points, key=lambda point: point.quality)
        panel.plot([best.settings["alpha"]], [best.quality], "o", markersize=9, mfc="none", color=colour)
    panel.set_xticks(ALPHAS)
    panel.set_xlabel("alpha, from words to vectors (ring: the best)")
    panel.set_ylabel("nDCG@10")
    panel.legend(frameon=False)


evaldata.show(shares, height=3.8)

# %%
evaldata.clean(db, "notebook-models")
db.close()
