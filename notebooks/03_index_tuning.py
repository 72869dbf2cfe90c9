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
# # Tuning the index: recall against latency
#
# An exact scan finds everything and takes a microsecond per row. A graph (HNSW) is faster but may miss some of the
# nearest rows. This notebook measures both effects on real text: for the exact scan, for graphs built and searched with
# different settings, and for plain SQL with the defaults of the planner and of pgvector.

# %%
import time
from dataclasses import replace

import evaldata
import numpy as np
import pandas as pd
import psycopg

import pgrecall
from pgrecall import F, GraphBuild
from pgrecall.evaluation import Evaluations, sweep
from pgrecall.evaluation.charts import COLOURS

# A separate space has a separate graph, so these experiments affect no other collection.
SPACE = replace(evaldata.SPACE, model="all-MiniLM-L6-v2 for index tuning")
windows, questions = evaldata.load_windows()
print(f"{questions.name}: {len(windows):,} sentences and pairs of sentences, {len(questions.queries):,} questions")

# %% [markdown]
# ## Two tenants in one graph
#
# All large collections of a space share one graph. The tenant "library" holds every text; the tenant "reading room"
# holds a part of the same texts. Judgements name paragraphs, which are the documents of the windows.

# %%
db = pgrecall.connect()
owner = psycopg.connect(
    db.admin_url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
)
kept = Evaluations(db.tenant("notebook-evaluation"))
library = db.tenant("notebook-library").vectors("windows", SPACE, embed=evaldata.embed)
room = db.tenant("notebook-room").vectors("windows", SPACE, embed=evaldata.embed)
part = windows[: max(2_100, len(windows) // 4)]
library.upsert(windows)
room.upsert(part)
print(f"library {library.count():,} rows, reading room {room.count():,} rows")

# %% [markdown]
# ## Builds
#
# `m` is the number of neighbors of a row in the graph, `ef_construction` the number of candidates considered to find
# them. Each build makes a new graph while the old one stays in use. Then every question is searched with few and with
# many candidates (`ef_search`), and once exactly. `ann_recall@10` is the share of the exact top ten that was found.

# %%
builds = {"m 8": GraphBuild(m=8, ef_construction=32), "m 16": GraphBuild(m=16, ef_construction=128),
          "m 32": GraphBuild(m=32, ef_construction=256)}  # fmt: skip
CANDIDATES = [10, 40, 100, 400]
options = {"metric": "ann_recall", "embed": evaldata.embed, "by": "document", "store": kept, "top_k": 10}

[(space_id,)] = owner.execute("SELECT id FROM pgrecall.embed_spaces WHERE model = %s", (SPACE.model,))
rows, points = [], {}
for name, build in builds.items():
    began = time.perf_counter()
    [done] = db.maintain(space_id, rebuild=True, build=build)
    took = time.perf_counter() - began
    index = f"pgrecall.chunk_vectors_graph_{space_id}_{done.generation}"
    [(size,)] = owner.execute("SELECT pg_relation_size(%s::regclass)", (index,))
    rows.append({"build": name, "ef_construction": build.ef_construction, "rows": done.rows,
                 "seconds": round(took, 1), "MB": round(size / 1e6, 1)})  # fmt: skip
    points[name] = sweep(library, questions, {"ef_search": CANDIDATES}, label=name, **options)
[exact] = sweep(library, questions, {"exact": [True]}, label="exact", **options)
pd.DataFrame(rows).set_index("build")


# %%
def frontier(figure):
    panel = figure.subplots()
    for (name, some), colour in zip(points.items(), COLOURS, strict=False):
        panel.plot([p.latency_ms for p in some], [p.quality for p in some], "o-", color=colour, ms=4, lw=1, label=name)
        for p in some:
            panel.annotate(p.settings["ef_search"], (p.latency_ms, p.quality), (3, -9), textcoords="offset points",
                           size=6.5, color=colour)  # fmt: skip
    panel.plot([exact.latency_ms], [exact.quality], "s", color="#0f172a", label="exact")
    panel.set_xlabel("search, p50 ms (at each point: ef_search)")
    panel.set_ylabel("ann_recall@10")
    panel.legend(frameon=False, loc="lower right")


evaldata.show(frontier, height=4)

# %% [markdown]
# Do the rows that the graph misses matter for the questions? The quality with few candidates, with many, and with an
# exact scan:

# %%
best = points["m 16"]
shown = [(f"ef_search {p.settings['ef_search']}", p) for p in best] + [("exact", exact)]
pd.DataFrame(
    [
        {
            "": name,
            "ann_recall@10": f"{p.quality:.4f}",
            "nDCG@10": f"{p.run.mean('ndcg@10'):.4f}",
            "p50 ms": f"{p.latency_ms:.1f}",
            "p95 ms": f"{p.run.summary['latency']['search']['p95']:.1f}",
        }
        for name, p in shown
    ]
).set_index("")

# %% [markdown]
# ## The planner's defaults
#
# The same table and graph, searched with plain SQL: `ORDER BY embedding <=> …  LIMIT 10` with a condition on the
# tenant, pgvector's default `ef_search` of 40, and no iterative scan. The graph does not know tenants: its forty
# candidates come from all of them, and the condition then removes those of others. Every other filter has the same
# problem.

# %%
[done] = db.maintain(space_id, rebuild=True, build=builds["m 16"])
owner.execute("ANALYZE pgrecall.chunk_vectors, pgrecall.chunks")


def plain_sql(tenant, condition="true"):
    statement = psycopg.sql.SQL("""
        SELECT v.chunk_id
        FROM pgrecall.chunk_vectors v
        JOIN pgrecall.chunks c ON (c.tenant_id, c.collection, c.id) = (v.tenant_id, v.collection, v.chunk_id)
        WHERE v.tenant_id = {tenant} AND v.collection = 'windows' AND {condition}
        AND v.space_id = {space} AND v.graph <= {graph}
        ORDER BY v.embedding::halfvec(384) <=> %s::halfvec(384) LIMIT 10""").format(
        tenant=tenant, condition=psycopg.sql.SQL(condition), space=space_id, graph=done.generation
    )
    return lambda vector: [found for (found,) in owner.execute(statement, (str(vector.tolist()),))]


def compared(store, filters=None, condition="true"):
    """Recall, latency and share of short results of plain SQL, of pgrecall, and of its exact search."""
    ways = {
        "plain SQL, defaults": plain_sql(store.tenant_id, condition),
        "pgrecall": lambda vector: [h.chunk_id for h in store.query(vector, 10, filters)],
        "pgrecall, exact": lambda vector: [h.chunk_id for h in store.query(vector, 10, filters, exact=True)],
    }
    vectors = evaldata.embed([query.text for query in questions.queries])
    found, took = {}, {}
    for name, way in ways.items():
        found[name], taken = [], []
        for vector in vectors:
            began = time.perf_counter()
            found[name].append(way(vector))
            taken.append((time.perf_counter() - began) * 1e3)
        took[name] = np.median(taken)
    truth = found["pgrecall, exact"]
    return [
        {
            "way": name,
            "recall": float(np.mean([len({*f} & {*t}) / len(t) for f, t in zip(some, truth, strict=True)])),
            "short": float(np.mean([len(f) < 10 for f in some])),
            "p50 ms": took[name],
        }
        for name, some in found.items()
    ]


pairs = F.sentences == 2
asked = {
    "library": compared(library),
    "library, pairs only": compared(library, pairs, """c.metadata @> '{"sentences": 2}'"""),
    "reading room": compared(room),
    "reading room, pairs only": compared(room, pairs, """c.metadata @> '{"sentences": 2}'"""),
}
pd.DataFrame([{"asked of": name, **row} for name, some in asked.items() for row in some]).set_index(
    ["asked of", "way"]
).rename(columns={"short": "fewer than ten rows"}).round(3)


# %%
def bars(figure):
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(asked))
    for panel, key, title in ((left, "recall", "recall@10"), (right, "p50 ms", "p50, ms")):
        for number, colour in enumerate(("#d97706", "#2563eb", "#94a3b8")):
            some = [rows[number] for rows in asked.values()]
            made = panel.barh(
                places + (number - 1) * 0.27, [row[key] for row in some], 0.25, color=colour, label=some[0]["way"]
            )
            panel.bar_label(made, fmt="%.2f", size=7, padding=2)
        panel.set_title(title)
        panel.grid(visible=False, axis="y")
        panel.margins(x=0.12)
    left.set_yticks(places, list(asked))
    left.invert_yaxis()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)


evaldata.show(bars, width=9, height=3.8)

# %% [markdown]
# pgrecall lets the graph search continue until it has enough of the tenant's own rows, uses an exact scan if that is
# faster, and compares rows one by one if a filter matches only a few.

# %%
owner.close()
evaldata.clean(db, "notebook-library", "notebook-room", "notebook-evaluation")
db.maintain(space_id)  # without large collections: drops the graph
db.close()
