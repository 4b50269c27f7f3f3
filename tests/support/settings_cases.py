"""What sentence-transformers keeps beside a model's weights, in files of a tiny checkpoint, which
`reference/record_settings.py` records and `test_transformer_settings.py` compares with."""

from pathlib import Path
from typing import Any

from tests.support.checkpoints import write_bert, write_json

TEXTS = [
    "Hello WORLD",
    "hello world",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h",
    "z",
]
NAMES = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
PROMPTS = {"prompts": {"query": "hello ", "document": ""}, "default_prompt_name": "query"}
LIMIT = {"max_seq_length": 16, "do_lower_case": True}
CASES: dict[str, dict[str, Any]] = {
    "none": {},
    **{f"sentence_{name}_config": {f"sentence_{name}_config": LIMIT} for name in NAMES},
    "lower": {"sentence_bert_config": {"do_lower_case": True}},
    "first name": {
        "sentence_bert_config": {"max_seq_length": 9},
        "sentence_roberta_config": LIMIT,
    },
    "empty first name": {"sentence_bert_config": {}, "sentence_roberta_config": LIMIT},
    "tokenizer_args": {
        "sentence_bert_config": {"max_seq_length": 20, "tokenizer_args": {"model_max_length": 7}}
    },
    "processor_kwargs": {"sentence_bert_config": {"processor_kwargs": {"model_max_length": 7}}},
    "default prompt": {"config_sentence_transformers": PROMPTS},
    "truncate_dim": {"config_sentence_transformers": {"truncate_dim": 6}},
    "pooling as a string": {"1_Pooling/config": {"embedding_dimension": 16, "pooling_mode": "max"}},
}
"""Files, without their endings, and what is in them."""


def write(folder: Path, files: dict[str, Any]) -> Path:
    """The checkpoint with these files; its tokeniser minds capitals."""
    write_bert(folder)
    (folder / "sentence_bert_config.json").unlink()
    tokenizer = folder / "tokenizer.json"
    text = tokenizer.read_text(encoding="utf-8")
    tokenizer.write_text(text.replace('"lowercase": true', '"lowercase": false'), encoding="utf-8")
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 40}
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    write_json(folder / "tokenizer_config.json", about | special | {"sep_token": "[SEP]"})
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    for name, content in {"1_Pooling/config": pooling, **files}.items():
        write_json(folder / f"{name}.json", content)
    return folder
