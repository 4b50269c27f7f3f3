"""The tokeniser that a checkpoint's files describe, as transformers understands them.

Most of it is in tokenizer.json. Other files add tokens and change parts of it: transformers'
classes for BERT and RoBERTa obey tokenizer_config.json before tokenizer.json, and
sentence-transformers lower-cases texts before all else if its own settings ask for that.
"""

import hashlib
import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from embedsvc.checkpoints.file_kinds import kind_of
from embedsvc.checkpoints.files import Files, as_array, as_object
from embedsvc.checkpoints.sample_texts import TEXTS
from embedsvc.checkpoints.transformer_settings import read_settings
from embedsvc.errors import CheckpointError
from embedsvc.system.home import cache_home

T = TypeVar("T")
FILE = "tokenizer.json"
OTHER_FILES = ("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model",
               "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
               "added_tokens.json", "config.json")  # fmt: skip
"""The files from which transformers makes a tokeniser where there is no tokenizer.json."""
FEW = 16
"""The most tokens that a message names."""
BERT_LIKE = ("Bert", "DistilBert", "MPNet", "Electra")
ROBERTA_LIKE = ("Roberta", "GPT2", "Bart")
"""Beginnings of the names of tokeniser classes that read tokenizer_config.json alike."""

WITHOUT_TYPES = ("Roberta", "XLMRoberta", "DistilBert", "Camembert", "GPT2", "Qwen2", "Gemma")
"""Beginnings of the names of classes that know no types of tokens."""

SEPARATORS = {"Bert": 1, "Electra": 1, "MPNet": 2, "Roberta": 2, "XLMRoberta": 2, "Camembert": 2}
"""How many separators stand between the texts of a pair, by the beginning of a class's name, where
the class and not tokenizer.json says it."""


def read_tokenizer(
    model: str,
    folder: Path,
    *,
    alone: bool = False,
    rows: int | None = None,
    plain: Sequence[str] = (),
) -> Tokenizer:
    """The tokeniser of a folder; it cuts no text and pads none.

    `alone`: tokenizer.json is the only file that counts, as for static embeddings. `rows` is how
    many tokens have word embeddings, if that is known; an added token beyond them is left out if
    `plain` names it, so that it is read as ordinary text.

    Raises `CheckpointError` that names the file, or the command that installs what reads it; also
    if another token is beyond the rows.
    """
    files = Files(model, folder)
    content = files.read_bytes(FILE)
    made = content is None
    if content is None:
        content = _converted(files)
    tokenizer = _guarded(files, lambda: Tokenizer.from_buffer(_without(content, rows, plain)))
    added: dict[str, str] = {}
    if not alone:
        config = files.read("tokenizer_config.json")
        _guarded(files, lambda: _switch(tokenizer, config), "tokenizer_config.json")
        added = _add_tokens(tokenizer, files, config, () if rows is None else plain)
        if read_settings(files)[1].do_lower_case:
            _lower(tokenizer)
    # tokenizer.json may have the settings of the model's training.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = _guarded(files, lambda: _ids(tokenizer))
    if rows is not None:
        _check_rows(files, tokenizer, ids, rows, added, made=made)
    return tokenizer


def has_types(model: str, folder: Path) -> bool:
    """Whether transformers gives the types of tokens to a model with this tokeniser."""
    config = Files(model, folder).read("tokenizer_config.json")
    stated = as_array(config.get("model_input_names"))
    if stated is not None:
        return "token_type_ids" in stated
    return not str(config.get("tokenizer_class")).startswith(WITHOUT_TYPES)


def separators(model: str, folder: Path) -> int | None:
    """How many separators the class of a tokeniser puts between two texts, if it is known."""
    kind = str(Files(model, folder).read("tokenizer_config.json").get("tokenizer_class"))
    return next((n for name, n in SEPARATORS.items() if kind.startswith(name)), None)


def _guarded(files: Files, work: Callable[[], T], name: str = FILE) -> T:
    """The result of `work`, in which the library reads a file.

    Whatever the library raises becomes a `CheckpointError` that names the file. A panic in Rust is
    a `BaseException` of no more particular class.
    """
    try:
        return work()
    except (KeyboardInterrupt, SystemExit, CheckpointError):
        raise
    except BaseException as error:  # noqa: BLE001
        kind = kind_of(files.beginning(name))
        raise files.error(name, kind or str(error).partition("\n")[0]) from None


def _without(content: bytes, rows: int | None, plain: Sequence[str]) -> bytes:
    """The content of tokenizer.json without those `plain` tokens that have no row."""
    if rows is None or not plain:
        return content
    whole: dict[str, Any] = msgspec.json.decode(content)
    whole["added_tokens"] = [
        token
        for token in as_array(whole.get("added_tokens")) or []
        if token["content"] not in plain or token["id"] < rows
    ]
    return msgspec.json.encode(whole)


def _ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The ids of all tokens that a text may have.

    They are those of the vocabulary, and those that some texts turn out to have: the ones that are
    put around every text need not be in the vocabulary.
    """
    ids = tokenizer.get_vocab(with_added_tokens=True)
    for encoding in tokenizer.encode_batch(["", *TEXTS]):  # a batch lets other threads run
        ids.update(zip(encoding.tokens, encoding.ids, strict=True))
    return ids


def _check_rows(
    files: Files,
    tokenizer: Tokenizer,
    ids: dict[str, int],
    rows: int,
    added: dict[str, str],
    *,
    made: bool,
) -> None:
    """Raise `CheckpointError` unless every token has a row; `added` are the files of added
    tokens."""
    without = sorted((number, token) for token, number in ids.items() if number >= rows)
    if not without:
        return
    number, token = without[0]
    name = added.get(token, "vocab.txt" if made and files.has("vocab.txt") else FILE)
    more = f" ({len(without)} such)" if len(without) > 1 else ""
    problem = (
        f"token `{token}` has id {number}, and the model has vectors for {rows} tokens, "
        f"0 to {rows - 1}{more}: tokeniser and weights do not belong together"
    )
    extra = {each.content for each in tokenizer.get_added_tokens_decoder().values()}
    if len(without) <= FEW and all(each in extra for _, each in without):
        names = ", ".join(f'"{each}"' for _, each in without)
        problem += f"; to read it as ordinary text, give the card `plain_tokens = [{names}]`"
    raise files.error(name, problem)


def _switch(tokenizer: Tokenizer, config: dict[str, Any]) -> None:
    """Change what the class named in tokenizer_config.json changes of tokenizer.json."""
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
    """A token as the files write it. One that is given by its text alone is special."""

    content: str
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    single_word: bool = False
    special: bool = True


def _add_tokens(
    tokenizer: Tokenizer, files: Files, config: dict[str, Any], plain: Sequence[str]
) -> dict[str, str]:
    """Add the tokens that other files name and tokenizer.json lacks, except the `plain` ones.

    They are added in the order of their ids. Returns the file that names each.
    """
    name = "tokenizer_config.json"
    numbered: Any = config.get("added_tokens_decoder") or {}
    stated = [(name, value) for value in _in_order(files, name, numbered, by_value=False)]
    named = [(name, config)]
    if not numbered:  # the older way to state them
        older = "special_tokens_map.json"
        named.append((older, files.read(older)))
        name = "added_tokens.json"
        by_name = _in_order(files, name, files.read(name), by_value=True)
        stated = [(name, value) for value in by_name]
    for name, about in named:
        stated += [(name, value) for key, value in about.items() if key.endswith("_token")]
        for key in ("additional_special_tokens", "extra_special_tokens"):
            by_key = as_object(about.get(key)) or {}
            listed = as_array(about.get(key)) or by_key.values()
            stated += [(name, value) for value in listed]
    new: dict[str, AddedToken] = {}
    added: dict[str, str] = {}
    for name, value in stated:
        token = _token(value)
        if token is None or token.content in (*plain, "") or token.content in new:
            continue
        if tokenizer.token_to_id(token.content) is None:
            new[token.content] = AddedToken(**msgspec.structs.asdict(token))
            added[token.content] = name
    library: Any = tokenizer
    library.add_tokens(list(new.values()))  # all at once: each call looks at all there are
    return added


def _in_order(files: Files, name: str, stated: Any, *, by_value: bool) -> list[Any]:
    """Tokens in the order of their ids, which are the keys of an object, or its values
    (`by_value`)."""
    try:
        pairs = (
            [(int(number), token) for number, token in stated.items()]
            if not by_value
            else [(int(number), token) for token, number in stated.items()]
        )
    except (AttributeError, TypeError, ValueError):
        raise files.error(name, "has added tokens without a number") from None
    return [token for _, token in sorted(pairs, key=lambda pair: pair[0])]


def _token(value: Any) -> _Token | None:
    """A token from a value of JSON; None if the value is none."""
    try:
        return _Token(value) if isinstance(value, str) else msgspec.convert(value, _Token)
    except msgspec.ValidationError:  # such as that of `add_bos_token`
        return None


def _lower(tokenizer: Tokenizer) -> None:
    """Have texts lower-cased before all else, unless the tokeniser does that already."""
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


def _converted(files: Files) -> bytes:
    """The content of tokenizer.json as transformers makes it from the older files.

    It is kept on the disk, by a digest of these files. Raises `CheckpointError`.
    """
    digest = hashlib.sha256()
    for name in OTHER_FILES:
        content = files.read_bytes(name)
        if content is not None:
            digest.update(name.encode() + b"\0" + content)
    cached = cache_home() / "tokenizers" / f"{digest.hexdigest()[:32]}.json"
    if cached.is_file():
        return cached.read_bytes()
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
    return made.encode()
