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
# # LangChain and LlamaIndex on the same rows
#
# Two frameworks, one collection: LlamaIndex reads what LangChain wrote, and both find the same chunks. This notebook
# runs the same questions through each framework and through the core, and compares their latency and ragas scores.

# %%
import evaldata
import pandas as pd
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from llama_index.core import VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.vector_stores.pgrecall import PGRecallVectorStore as LlamaIndexStore

import pgrecall
from langchain_pgrecall import PGRecallVectorStore as LangChainStore
from pgrecall.evaluation import Evaluations, evaluate
from pgrecall.evaluation.charts import latency_histogram
from pgrecall.evaluation.ragas_metrics import RagasScorer

data = evaldata.load()
questions = data.pooled
print(data)

# %% [markdown]
# ## One model for all three
#
# pgrecall knows the space of the frameworks' classes for hosted models. This model is a plain function, so each
# framework gets a small wrapper class, and the space is passed to both stores.


# %%
class LangChainModel(Embeddings):
    def embed_documents(self, texts):
        return evaldata.embed(texts).tolist()

    def embed_query(self, text):
        return self.embed_documents([text])[0]


class LlamaIndexModel(BaseEmbedding):
    def _get_text_embedding(self, text):
        return evaldata.embed([text])[0].tolist()

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query):
        return self._get_query_embedding(query)


db = pgrecall.connect()
tenant = db.tenant("notebook-frameworks")
options = {"connection": db, "tenant": "notebook-frameworks", "collection": "shared", "space": evaldata.SPACE}
langchain = LangChainStore(LangChainModel(), **options)
llama_index = LlamaIndexStore(LlamaIndexModel(), **options)
core = tenant.vectors("shared", evaldata.SPACE)

# %% [markdown]
# LangChain writes.

# %%
langchain.add_documents([Document(chunk.text, id=chunk.id) for chunk in data.every])
nodes = llama_index.get_nodes([data.every[0].id])
print(f"{core.count():,} chunks; LlamaIndex reads {nodes[0].node_id!r} as {type(nodes[0]).__name__}")

# %% [markdown]
# ## All three read
#
# Each run also has ragas' scores: context precision and recall by ids, and by the similarity of the texts to the
# paragraph that answers the question, which needs no language model.

# %%
kept = Evaluations(tenant)
texts = {chunk.id: chunk.text for chunk in data.every}
names = ["id_based_context_precision", "id_based_context_recall", "non_llm_context_precision_with_reference",
         "non_llm_context_recall"]  # fmt: skip
scorer = RagasScorer(names, texts_of=lambda ids: [texts[i] for i in ids])
index = VectorStoreIndex.from_vector_store(llama_index, embed_model=LlamaIndexModel())
asked = {"store": kept, "scorers": [scorer], "top_k": (1, 3, 5, 10)}
runs = {
    "core": evaluate(core, questions, embed=evaldata.embed, label="core", **asked),
    "LangChain": evaluate(langchain.as_retriever(search_kwargs={"k": 10}), questions, label="LangChain", **asked),
    "LlamaIndex": evaluate(index.as_retriever(similarity_top_k=10), questions, label="LlamaIndex", **asked),
}
pd.DataFrame(
    [
        {
            "way": name,
            "nDCG@10": run.mean("ndcg@10"),
            "recall@10": run.mean("recall@10"),
            **{name.replace("_", " "): run.mean(f"ragas_{name}") for name in names},
            "failed": run.summary["failed"],
        }
        for name, run in runs.items()
    ]
).set_index("way").round(4).T


# %% [markdown]
# Not only the means agree: every question got the same chunks in the same order.


# %%
def answers(run):
    return [[row["id"] for row in result.retrieved] for result in run.results]


for name in ("LangChain", "LlamaIndex"):
    same = sum(a == b for a, b in zip(answers(runs[name]), answers(runs["core"]), strict=True))
    print(f"{name}: {same:,} of {len(questions.queries):,} answers are the core's")

# %% [markdown]
# ## What a framework costs
#
# Milliseconds from the question to its rows. The vectors of questions come from the cache, so this measures the search
# and the framework around it.

# %%
evaldata.show(latency_histogram(list(runs.values())), height=3.4)

# %% [markdown]
# ## ragas, by depth of the judgement
#
# Precision by ids is the share of right rows among ten, of which only one can be right. Precision by texts also accepts
# a neighbor with nearly the same text, and weights ranks. Recall says whether the right row was found.


# %%
def ragas(figure):
    panel = figure.subplots()
    for number, ((name, run), colour) in enumerate(zip(runs.items(), ("#94a3b8", "#2563eb", "#d97706"), strict=True)):
        found = [run.summary["metrics"][f"ragas_{metric}"] for metric in names]
        means = [m["mean"] for m in found]
        spread = [[m["mean"] - m["low"] for m in found], [m["high"] - m["mean"] for m in found]]
        places = [place + (number - 1) * 0.26 for place in range(len(names))]
        panel.bar(places, means, 0.24, yerr=spread, color=colour, label=name, error_kw={"lw": 0.9})
    labels = ["precision\nby ids", "recall\nby ids", "precision\nby texts", "recall\nby texts"]
    panel.set_xticks(range(len(names)), labels)
    panel.set_ylim(0, 1.05)
    panel.grid(visible=False, axis="x")
    panel.legend(frameon=False, ncols=3, loc="upper left")


evaldata.show(ragas, height=3.4)

# %%
evaldata.clean(db, "notebook-frameworks")
db.close()
