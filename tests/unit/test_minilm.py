"""The quickstart's embedding model is the real one, and numpy computes it as exactly as float32 can."""

import hashlib
import math

import numpy as np
import pytest

pytest.importorskip("safetensors", reason="the demo group is not installed")
pytest.importorskip("tokenizers", reason="the demo group is not installed")

import minilm

try:
    FOLDER = minilm.model_folder()
except ModuleNotFoundError as missing:
    pytest.skip(str(missing), allow_module_level=True)

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
QUESTION = "How do I open a TCP connection with a timeout?"
ANSWER = "socket.create_connection — Connect to an address; give up after timeout seconds."
UNRELATED = "statistics.median — Return the median (middle value) of numeric data."
TEXTS = [QUESTION, ANSWER, UNRELATED, "", "a", "naïve café — 東京 🙂", "word " * 400, ANSWER * 6]


@pytest.fixture(scope="module")
def weights():
    return {name: w.astype(np.float64) for name, w in minilm.load_file(FOLDER / "model.safetensors").items()}


def straightforward(weights, text):
    """BERT as the paper has it, one text at a time, in float64, with the C library's erf."""

    def dense(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * weights[f"{name}.LayerNorm.weight"] + weights[f"{name}.LayerNorm.bias"]

    def heads(x, name):
        return dense(x, name).reshape(len(x), 12, 32).transpose(1, 0, 2)

    ids = minilm._model().tokenizer.encode(text).ids
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings")
    for layer in (f"encoder.layer.{i}" for i in range(6)):
        q, k, v = (heads(x, f"{layer}.attention.self.{name}") for name in ("query", "key", "value"))
        scores = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(32))
        seen = (scores / scores.sum(-1, keepdims=True)) @ v
        mixed = dense(seen.transpose(1, 0, 2).reshape(len(ids), 384), f"{layer}.attention.output.dense")
        x = norm(x + mixed, f"{layer}.attention.output")
        h = dense(x, f"{layer}.intermediate.dense")
        h = h / 2 * (1 + np.vectorize(math.erf)(h / math.sqrt(2)))
        x = norm(x + dense(h, f"{layer}.output.dense"), f"{layer}.output")
    return x.mean(0) / np.linalg.norm(x.mean(0))


def test_the_weights_are_the_published_ones():
    """The file has the published hash."""
    with (FOLDER / "model.safetensors").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == SHA256


def test_vectors_are_of_384_dims_float32_and_length_1():
    """Vectors have the shape, type and length that their space says."""
    vectors = minilm.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), minilm.MiniLM.dim) == (8, minilm.SPACE_ARGS["dim"])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_no_texts_give_no_vectors():
    """An empty list is no special case."""
    assert minilm.embed([]).shape == (0, 384)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: f"{len(text)}-characters")
def test_a_vector_is_what_a_straightforward_float64_model_computes(weights, text):
    """The batched float32 model agrees with a plain one to float32's precision."""
    # Measured over 31 texts: 1.9e-7 at most, the same as with an exact erf; float32 itself allows no better.
    np.testing.assert_allclose(minilm.embed([text])[0], straightforward(weights, text), atol=4e-7, rtol=0)


def test_vectors_do_not_drift():
    """Numbers that were frozen once come out again."""
    frozen = {
        QUESTION: [0.0122807, 0.1057154, -0.0588533, 0.0181361, 0.0113255, -0.0199356],
        "": [-0.1188384, 0.0482987, -0.0025481, 0.0359495, 0.0377174, -0.0157173],
    }
    for text, values in frozen.items():
        np.testing.assert_allclose(minilm.embed([text])[0, [0, 1, 2, 100, 200, 383]], values, atol=1e-6)


def test_a_question_is_closer_to_its_answer_than_to_another_text():
    """The model means something."""
    question, answer, unrelated = minilm.embed([QUESTION, ANSWER, UNRELATED])
    assert question @ answer > 0.5
    assert question @ unrelated < 0.2


def test_a_text_has_the_same_vector_alone_and_among_others():
    """Padding and batching change nothing."""
    batch = minilm.embed(TEXTS * 5)  # more tokens than one batch holds, lengths mixed
    for text, vector in zip(TEXTS * 5, batch, strict=True):
        np.testing.assert_allclose(vector, minilm.embed([text])[0], atol=1e-6)


def test_text_past_256_tokens_is_not_read():
    """A longer text has the vector of its beginning."""
    read = "word " * 254  # and [CLS] before, [SEP] after
    same, longer, shorter = minilm.embed([read, read + "timeout " * 50, read[:-5]])
    np.testing.assert_allclose(same, longer, atol=1e-6)
    assert np.abs(same - shorter).max() > 1e-5


def test_gelu_is_the_exact_one_and_not_the_tanh_approximation():
    """The error is a thousandth of the approximation's."""
    x = np.linspace(-12, 12, 24_001).astype(np.float32).reshape(-1, 1)
    exact = np.vectorize(lambda v: v / 2 * math.erfc(-v / math.sqrt(2)))(x.astype(np.float64))
    assert np.abs(minilm.gelu(x.copy()) - exact).max() < 5e-7  # tanh is 4.7e-4 off
