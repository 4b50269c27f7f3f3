"""The tokeniser that a checkpoint's files describe, as transformers understands them.

Most of it is in tokenizer.json. The other files add tokens and switch parts of it: the classes
that transformers has for BERT and RoBERTa obey tokenizer_config.json before tokenizer.json, and
sentence-transformers puts lower-casing of its own before everything.
"""

import hashlib
import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any, cast

import msgspec
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from embedsvc.checkpoints.files import Files

FILE = "tokenizer.json"
OTHER_FILES = ("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model",
               "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
               "added_tokens.json", "config.json")  # fmt: skip
"""What transformers makes a tokeniser from where there is no tokenizer.json."""
BERT_LIKE = ("Bert", "DistilBert", "MPNet", "Electra")
ROBERTA_LIKE = ("Roberta", "GPT2", "Bart")


def read_tokenizer(model: str, folder: Path) -> Tokenizer:
    """The tokeniser of a folder, with nothing cut and nothing padded.

    Raises `CheckpointError` that names the file, or the command that installs what reads it.
    """
    files = Files(model, folder)
    file = folder / FILE
    if not file.is_file():
        file = _converted(files)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        raise files.error(FILE, str(error)) from None
    config = files.read("tokenizer_config.json")
    _switch(tokenizer, config)
    _add_tokens(tokenizer, files, config)
    if files.read("sentence_bert_config.json").get("do_lower_case"):
        _lower(tokenizer)
    # The file may carry the settings of the model's training.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _switch(tokenizer: Tokenizer, config: dict[str, Any]) -> None:
    """What the class named in tokenizer_config.json changes."""
    kind = str(config.get("tokenizer_class")).removesuffix("Fast").removesuffix("Tokenizer")
    if kind in BERT_LIKE and isinstance(tokenizer.normalizer, normalizers.BertNormalizer):
        tokenizer.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=bool(config.get("tokenize_chinese_chars", True)),
            strip_accents=config.get("strip_accents"),
            lowercase=bool(config.get("do_lower_case", True)),
        )
    before = tokenizer.pre_tokenizer
    if kind in ROBERTA_LIKE and isinstance(before, pre_tokenizers.ByteLevel):
        before.add_prefix_space = bool(config.get("add_prefix_space", False))
        tokenizer.pre_tokenizer = before


class _Token(msgspec.Struct):
    """A token as the files write it; those given by their text alone are special."""

    content: str
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    single_word: bool = False
    special: bool = True


def _add_tokens(tokenizer: Tokenizer, files: Files, config: dict[str, Any]) -> None:
    """Tokens that other files name and tokenizer.json lacks, in the order of their ids."""
    numbered: dict[str, Any] = config.get("added_tokens_decoder") or {}
    stated: list[Any] = [numbered[number] for number in sorted(numbered, key=int)]
    named = [config]
    if not numbered:  # the older way to say it
        named.append(files.read("special_tokens_map.json"))
        by_name = files.read("added_tokens.json")
        stated = sorted(by_name, key=lambda name: int(by_name[name]))
    for about in named:
        stated += [value for key, value in about.items() if key.endswith("_token")]
        for key in ("additional_special_tokens", "extra_special_tokens"):
            more: Any = about.get(key) or []
            stated += more.values() if isinstance(more, dict) else more
    for value in stated:
        token = _token(value)
        if token is None or tokenizer.token_to_id(token.content) is not None:
            continue
        add: Any = tokenizer
        add = add.add_special_tokens if token.special else add.add_tokens
        add([AddedToken(**msgspec.structs.asdict(token))])


def _token(value: Any) -> _Token | None:
    try:
        return _Token(value) if isinstance(value, str) else msgspec.convert(value, _Token)
    except msgspec.ValidationError:  # no token, such as add_prefix_space
        return None


def _lower(tokenizer: Tokenizer) -> None:
    """Lower-casing before all else, where none is there yet."""
    normalizer = tokenizer.normalizer
    parts: list[Any] = []
    if isinstance(normalizer, normalizers.Sequence):
        parts.extend(cast(Any, normalizer))
    elif normalizer is not None:
        parts.append(normalizer)
    for part in parts:
        bert = isinstance(part, normalizers.BertNormalizer) and part.lowercase
        if bert or isinstance(part, normalizers.Lowercase):
            return
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *parts])


def _converted(files: Files) -> Path:
    """tokenizer.json made by transformers from the older files, once for each state of them."""
    sources = [files.folder / name for name in OTHER_FILES if (files.folder / name).is_file()]
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    cached = _cache_folder() / f"{digest.hexdigest()[:32]}.json"
    if cached.is_file():
        return cached
    if importlib.util.find_spec("transformers") is None:
        raise files.error(
            FILE,
            "is missing; transformers can make it from other files: "
            "pip install 'embedsvc[mlx-embeddings]'",
        )
    transformers = importlib.import_module("transformers")
    try:
        slow = transformers.AutoTokenizer.from_pretrained(str(files.folder), local_files_only=True)
        made: str = slow.backend_tokenizer.to_str()
    except Exception as error:  # noqa: BLE001 - whatever the files make it raise
        raise files.error(FILE, f"is missing, and transformers cannot make it: {error}") from None
    cached.parent.mkdir(parents=True, exist_ok=True)
    unfinished = cached.with_suffix(f".{os.getpid()}")
    unfinished.write_text(made, encoding="utf-8")
    unfinished.replace(cached)
    return cached


def _cache_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "embedsvc" / "tokenizers"
