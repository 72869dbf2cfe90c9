"""Generated metadata and operands for filters: keys, values and traps that have broken other stores."""

import string

MISSING = object()  # no key at all

# 26 keys, so that each filter of a cell has its own: nothing in them may be read as SQL, as a placeholder
# of SQLAlchemy or psycopg, as a path, or as an index into an array.
KEYS = [
    "lang", "it's", 'say "hi"', "a.b.c", "schlüssel", "ключ", "🗝", "100%", "%s", "%(f0)s", "%%", ":f0",
    "a::jsonb", "{x}", "{}", "$.a[*]", "back\\slash", "\\u0000", "0", "-1", "", " ", "line\nbreak",
    "contains", "null", "'; DROP TABLE filter_rows; --",
]  # fmt: skip
POOLS = {
    "str": [
        "", " ", "de", "DE", "Zebra", "zebra", "z", "éclair", "e\u0301clair", "ﬀ", "～", "\uffff", "😀", "𐀀",
        "a:b", ":f0", "c:\\new\\u0000", "\\", "100%", "50_50", "%(f0)s", "it's", '"', "' OR 1=1 --", "1",
        "true", "null", "[]", '{"a": 1}', "line\nbreak", "'; DROP TABLE filter_rows; --", "tab\t", "\x01",
        "1e+23",
    ],
    "int": [0, 1, -1, 2, 10, 9, -10, 255, 2**31, 2**53, 2**53 + 1, 2**64, 10**23, 10**40, -(10**400)],
    "float": [
        0.0, -0.0, 1.0, -1.0, 0.1, 0.30000000000000004, 2.5, -2.5, 10.0, 1e16, 1e23, -1.5e300, 5e-324, 1e-320,
        1.7976931348623157e308, 9007199254740992.0,
    ],
    "bool": [True, False],
    "null": [None],
    "list": [
        [], [1], [1.0], [True], [None], [[1]], [[]], [{}], ["de"], ["de", "en"], ["en", "de"], [1, 2, 2],
        [0, "0"], [{"a": 1}], ["a:b", "\\"], ["1", 1, True, None, 0.1, []],
    ],
    "dict": [
        {}, {"a": 1}, {"a": 1.0}, {"a": True}, {"a": None}, {"a": "1"}, {"a": {"b": []}}, {"a": {"b": {}}},
        {"0": "x"}, {"a": 1, "b": 2}, {"a": [1]}, {"a": [{"b": 1}]}, {"it's": "100%"},
        {":f0": "a:b", "{}": "\\"},
    ],
}  # fmt: skip
POOLS["mixed"] = [value for pool in list(POOLS.values()) for value in pool]
#: Lists that arrays are compared with; rows have other lists too.
POOLS["ordered"] = [[], [1], [1.0], [1, 2], [1, 3], [2], ["a"], ["a", "b"], ["Z"], ["é", 1], [0, "0"], [10**23]]
SCALARS = ("str", "int", "float", "bool", "null")

OPERATOR_KINDS = [
    *((op, kind) for op in ("eq", "ne", "in", "nin") for kind in POOLS if op in ("in", "nin") or kind != "mixed"),
    *((op, kind) for op in ("gt", "gte", "lt", "lte", "between") for kind in ("str", "int", "float")),
    *((op, "ordered") for op in ("gt", "gte", "lt", "lte")),
    *((op, kind) for op in ("contains", "any", "all", "has_any", "has_all") for kind in SCALARS),
    ("has_any", "list"),
    *((op, "str") for op in ("text_match", "text_match_i", "part_of", "like", "ilike")),
    *((op, kind) for op in ("exists", "is_empty") for kind in POOLS if kind != "mixed"),
]


def random_operand(rng, op, kind):
    pool = POOLS[kind]
    match op:
        case "between":
            return sorted([*rng.sample(pool, 2)])
        case "in" | "nin" | "any" | "has_any":
            return rng.choices(pool, k=rng.choice([1, 2, 3, 30]))
        case "all" | "has_all":
            return rng.choices(pool, k=rng.choice([1, 2, 3]))
        case "exists" | "is_empty":
            return rng.random() < 0.5
        case "like" | "ilike":
            text = rng.choice(pool)
            escaped = "".join(f"\\{c}" if c in "\\%_" else c for c in text)
            cut = rng.randrange(len(text) + 1)
            return rng.choice(
                [escaped, f"%{escaped}", f"{escaped}%", f"%{escaped}%", "_" * cut + "%", f"%{escaped}_%", "%"]
            )
    return rng.choice(pool)


def related_values(rng, operand, kind):
    """Row values that an operand may match: itself, its parts, and those wrapped, embedded and changed."""
    parts = list(operand) if isinstance(operand, list | tuple) else [operand]
    # What the pattern \%de_ was made from, with a letter for each free place.
    plain = [p.replace("\\_", "\0").replace("_", "x").replace("\0", "_") for p in parts if isinstance(p, str)]
    plain += [p.replace("\\%", "\0").replace("%", "").replace("\0", "%").replace("\\\\", "\\") for p in plain]
    texts = [p for p in parts if isinstance(p, str)] + plain
    folded = ["".join(c.swapcase() if c in string.ascii_letters else c for c in text) for text in texts]
    near = [v for v in parts if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 2**53]
    return [
        operand,
        *parts,
        parts,
        [parts],
        parts[::-1],
        *([part] for part in parts),
        [*parts, rng.choice(POOLS["mixed"])],
        {"a": operand},
        dict.fromkeys(texts, 0),
        "|".join(texts),
        *(text[1:] for text in texts),
        *texts,
        *folded,
        *(f"x{text}😀" for text in texts + folded),
        *(f"{text}y" for text in texts + folded),
        *(value + 1 for value in near),
        *(value - 0.5 for value in near),
        *POOLS[kind],
    ]


def put(rng, metadata, path, value):
    """Put a value at the path. A missing one leaves no key, or traps: a list with that index, a scalar."""
    *parents, key = path
    if value is not MISSING:
        for parent in parents:
            metadata = metadata.setdefault(parent, {})
        metadata[key] = value
    elif parents:
        trap = rng.choice([MISSING, {}, ["x", {"0": 1}], "x", None, {"other": {key: "x"}}, 1])
        if trap is not MISSING:
            metadata[parents[0]] = trap
