"""Trains small tokenisers of every kind, and records the ids that sentence-transformers gets.

Each folder of `tokenizers/` holds one, with the files beside tokenizer.json that change what it
does. The tests read only what this writes; this script needs torch and sentence-transformers:

    python tests/reference/record_tokenizers.py
"""

import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sentence_transformers.models import Transformer
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import BertConfig, BertModel

HERE = Path(__file__).parent
OUT = HERE / "tokenizers"
TEXTS = [
    "",
    " ",
    "Hello, World! Don't STOP.",
    "  leading and   trailing spaces \t\n",
    "Éclair naïve ﬁne Ǆ ÅNGSTRÖM İstanbul",
    "中文字符和日本語のテキスト 한국어",
    "Мой брат чинит старые ёлочные игрушки",
    "emoji 🙂👩‍👩‍👧 and a zero\u200bwidth space",
    "[CLS] special <s> words </s> in [MASK] text <|endoftext|> <eos>",
    "A [NEW] thing, [HEY] and [THIRD] one",
    "1234567890 3.14159 1e-5 $100 50% #tag @you",
    "antidisestablishmentarianism " * 3,
]
BERT = {"tokenizer_class": "BertTokenizer", "model_max_length": 512}
FAST = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512}
ROBERTA = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
    "model_max_length": 512,
}
ROBERTA_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def corpus() -> list[str]:
    """What the tokenisers learn from."""
    texts: list[str] = json.loads((HERE / "texts.json").read_text(encoding="utf-8"))
    return [*texts[:60], *TEXTS]


def wordpiece(*, lowercase: bool) -> Tokenizer:
    """BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=None)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        corpus(),
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def qwen() -> Tokenizer:
    """Qwen's byte-level BPE, with the end-of-text token that its embedding models add."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    train_bytes(tokenizer, ["<|endoftext|>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    return tokenizer


def roberta() -> Tokenizer:
    """RoBERTa's byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    train_bytes(tokenizer, ROBERTA_TOKENS)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def train_bytes(tokenizer: Tokenizer, special: list[str]) -> None:
    """A byte-level vocabulary."""
    tokenizer.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=400,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=special,
            show_progress=False,
        ),
    )


def unigram() -> Tokenizer:
    """XLM-RoBERTa's SentencePiece model."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.train_from_iterator(
        corpus(),
        trainers.UnigramTrainer(
            vocab_size=900, unk_token="<unk>", special_tokens=ROBERTA_TOKENS, show_progress=False
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def gemma() -> Tokenizer:
    """Gemma's BPE, with both ends marked."""
    tokenizer = Tokenizer(models.BPE(fuse_unk=True, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        corpus(), trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    return tokenizer


def write(name: str, tokenizer: Tokenizer, config: dict[str, Any], **files: Any) -> None:
    """A folder with tokenizer.json, tokenizer_config.json and other JSON files."""
    folder = OUT / name
    folder.mkdir(parents=True)
    compact = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(compact + "\n", encoding="utf-8")
    for file, content in {"tokenizer_config": config, **files}.items():
        (folder / f"{file}.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


def write_all() -> None:
    """Every kind, and every way in which the files beside tokenizer.json matter."""
    uncased, cased = wordpiece(lowercase=True), wordpiece(lowercase=False)
    write("bert", uncased, BERT | {"do_lower_case": True})
    write("bert-config-lowers", cased, BERT | {"do_lower_case": True})
    write("bert-config-keeps-case", uncased, BERT | {"do_lower_case": False})
    write("bert-config-silent", cased, BERT)
    strip = {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False}
    write("bert-config-strips", cased, BERT | strip)
    lower = {"sentence_bert_config": {"max_seq_length": 64, "do_lower_case": True}}
    write("bert-sentence-transformers-lowers", cased, BERT | {"do_lower_case": False}, **lower)
    write("fast-config-ignored", cased, FAST | {"do_lower_case": True})
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    new = {"290": {"content": "[NEW]", "special": True, **flags}}
    ignored = {"special_tokens_map": {"additional_special_tokens": ["[HEY]"]}}
    write("added-by-config", uncased, FAST | {"added_tokens_decoder": new}, **ignored)
    write("added-by-map", uncased, FAST, **ignored)
    token = AddedToken("[THIRD]", special=False, normalized=True)
    with_token = Tokenizer.from_str(uncased.to_str())
    with_token.add_tokens([token])
    write("added-inside", with_token, BERT | {"do_lower_case": True})
    ends = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "add_bos_token": False}
    write("qwen", qwen(), {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": 131072, **ends})
    write("roberta", roberta(), ROBERTA | {"tokenizer_class": "RobertaTokenizer"})
    spaced = {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True}
    write("roberta-prefix-space", roberta(), ROBERTA | spaced)
    huge = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 10**30}
    write("xlm-roberta", unigram(), ROBERTA | huge)
    ends = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    marks = {"add_bos_token": True, "add_eos_token": True, "model_max_length": 2048}
    write("gemma", gemma(), {"tokenizer_class": "GemmaTokenizer", **ends, **marks})


def write_vocabulary() -> None:
    """A BERT tokeniser as it was before tokenizer.json."""
    folder = OUT / "vocabulary-only"
    folder.mkdir()
    vocabulary = wordpiece(lowercase=True).get_vocab()
    words = sorted(vocabulary, key=lambda word: vocabulary[word])
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    config = BERT | {"do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n", encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "bert"}\n', encoding="utf-8")


def ids(folder: Path) -> tuple[list[list[int]], int]:
    """What sentence-transformers makes of the texts, nothing cut, and its limit."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / folder.name
        shutil.copytree(folder, copy)
        config = BertConfig(
            vocab_size=2000,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            max_position_embeddings=100,
        )
        BertModel(config).save_pretrained(copy)
        stated: dict[str, Any] = {}
        if (copy / "sentence_bert_config.json").is_file():
            stated = json.loads((copy / "sentence_bert_config.json").read_text(encoding="utf-8"))
        transformer = Transformer(str(copy), **stated)
        found = [transformer.tokenizer(text, truncation=False)["input_ids"] for text in TEXTS]
        return found, int(transformer.max_seq_length)


def main() -> None:
    """Writes the folders, then what they should do."""
    shutil.rmtree(OUT, ignore_errors=True)
    write_all()
    write_vocabulary()
    recorded = {folder.name: ids(folder) for folder in sorted(OUT.iterdir())}
    record = {
        "versions": {
            name: version(name) for name in ("sentence-transformers", "transformers", "tokenizers")
        },
        "texts": TEXTS,
        "ids": {name: found for name, (found, _) in recorded.items()},
        "max_tokens": {name: limit for name, (_, limit) in recorded.items()},
    }
    (HERE / "tokenizers.json").write_text(
        json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8"
    )
    print(f"{len(recorded)} tokenisers, {len(TEXTS)} texts recorded")


if __name__ == "__main__":
    main()
