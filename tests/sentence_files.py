"""Small files with the columns of the sentence data sets, as the hub has them."""

import itertools
import json

import datasets

COLOURS = ("red", "green", "blue", "white", "black", "brown", "grey", "pink")
THINGS = ("boat", "lamp", "chair", "kettle", "ladder", "basket", "mirror", "bicycle")
PLACES = ("harbour", "cellar", "garden", "attic", "station", "market")


def made(name, number):
    """That many different sentences of eight words, none part of another."""
    triples = itertools.product(THINGS, COLOURS, PLACES)
    return [f"The {c} {t} stood in the {name} {p}" for t, c, p in itertools.islice(triples, number)]


def rows(data, number=50):
    """(text, label number) of each class, one after the other."""
    return [(text, i) for i, name in enumerate(data.classes) for text in made(name, number)]


def parquet(file, columns, data):
    features = {name: datasets.Value("string") for name in columns}
    features[data.label] = datasets.ClassLabel(names=list(data.classes))
    file.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(file)


def publish(folder, data, pairs):
    """Write files and columns as the hub's data set has them."""
    texts, labels = ([pair[i] for pair in pairs] for i in (0, 1))
    columns = {data.text: texts, data.label: labels}
    empty = {name: values[:0] for name, values in columns.items()}
    if data.key == "ethos":  # JSON lines, in two splits
        half = len(pairs) // 2
        for split, part in (("train", pairs[:half]), ("test", pairs[half:])):
            lines = [json.dumps({"text": t, "label": n, "label_text": f"class {n}"}) for t, n in part]
            (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    elif data.key == "amazon":
        titles = {"title": ["A title"] * len(pairs)}
        parquet(folder / "amazon_polarity" / "test-00000-of-00001.parquet", columns | titles, data)
        other = {data.text: ["a row of a split that is not asked for"], data.label: [0]}
        parquet(folder / "amazon_polarity" / "train-00000-of-00001.parquet", other | {"title": ["A title"]}, data)
        (folder / "README.md").write_text(
            "---\nconfigs:\n- config_name: amazon_polarity\n  data_files:\n  - split: train\n"
            "    path: amazon_polarity/train-*\n  - split: test\n    path: amazon_polarity/test-*\n---\n"
        )
    elif data.key == "financial-phrasebank":
        parquet(folder / "sentences_allagree" / "train" / "0000.parquet", columns, data)
        parquet(folder / "sentences_50agree" / "train" / "0000.parquet", empty, data)
    else:
        more = {"idx": [str(i) for i in range(len(pairs))]} if data.key == "sst2" else {}
        parquet(folder / "data" / "train-00000-of-00001.parquet", columns | more, data)
        parquet(folder / "data" / "test-00000-of-00001.parquet", empty, data)
