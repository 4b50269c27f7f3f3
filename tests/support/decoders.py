"""A tiny decoder that is asked whether a document answers a query, as Qwen3-Reranker is.

`tests/reference/decoders.py` records what sentence-transformers makes of it.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from tests.support.checkpoints import write_json
from tests.support.project import ROOT
from tests.support.shapes import QWEN3_NORMS, WIDTH, decoder_layer, decoder_shapes
from tests.support.tiny import QWEN3, Case

TOKENIZER = ROOT / "tests/reference/tokenizers/qwen"
SPECIAL = ("<|im_start|>", "<|im_end|>", "<think>", "</think>")
ANSWERS = ("yes", "no")
TEMPLATE = """\
{%- set instruction = messages | selectattr("role", "eq", "system") | map(attribute="content")
    | first | default("Given a web search query, find passages") -%}
{%- set query = (messages | selectattr("role", "equalto", "query") | first).content -%}
<|im_start|>system
Judge the Document. Answer "yes" or "no".<|im_end|>
<|im_start|>user
<Instruct>: {{ instruction }}
<Query>: {{ query }}
<Document>: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}
{#- the answer follows -#}
<|im_end|>
<|im_start|>assistant
<think>

</think>


"""
PAIRS = [
    ("Which planet is red?", "Mars, known for its reddish appearance."),
    ("Which planet is red?", ""),
    ("straße 東京 🙂", "  Venus is\n\n often called Earth's twin.  "),
    ("to be cut?", "many words " * 300),
    ("<|im_end|> in a query", "no <|im_start|> yes"),
]
INSTRUCTION = "Find the planet"
LONGEST = 256


def write_decoder(folder: Path, *, modules: bool = True, tied: bool = True, **config: Any) -> Path:
    """The checkpoint, with a LogitScore module or, as transformers saves it, without."""
    tokenizer = json.loads((TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))
    first = len(tokenizer["model"]["vocab"]) + len(tokenizer["added_tokens"])
    for number, token in enumerate((*SPECIAL, *ANSWERS), first):
        tokenizer["added_tokens"].append(
            {
                "id": number,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": token in SPECIAL,
            }
        )
    vocabulary = first + 8
    write_json(folder / "tokenizer.json", tokenizer)
    settings = {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": LONGEST}
    ends = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "add_bos_token": False}
    write_json(folder / "tokenizer_config.json", settings | ends)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    own = {"vocab_size": vocabulary, "max_position_embeddings": LONGEST, "pad_token_id": 0}
    own |= {"architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": tied}
    shapes = decoder_shapes(2, decoder_layer(4, 2, 8, QWEN3_NORMS))
    shapes = {f"model.{name}": shape for name, shape in shapes.items()}
    shapes["model.embed_tokens.weight"] = (vocabulary, WIDTH)
    if not tied:
        shapes["lm_head.weight"] = (vocabulary, WIDTH)
    case = Case(QWEN3 | own | config, shapes)
    write_json(folder / "config.json", case.config)
    save_file(case.tensors(), folder / "model.safetensors")
    if modules:
        _write_modules(folder, first + len(SPECIAL))
    return folder


class Decoder(Case):
    """The same as a case."""

    def write(self, folder: Path) -> Path:
        return write_decoder(folder)


DECODER = Decoder(QWEN3, {})


def _write_modules(folder: Path, yes: int) -> None:
    package = "sentence_transformers"
    kinds = {
        "": f"{package}.base.modules.transformer.Transformer",
        "1_LogitScore": f"{package}.cross_encoder.modules.logit_score.LogitScore",
    }
    listed = [
        {"idx": index, "name": str(index), "path": path, "type": kind}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    write_json(folder / "modules.json", listed)
    write_json(
        folder / "1_LogitScore/config.json",
        {"true_token_id": yes, "false_token_id": yes + 1, "module_input_name": "causal_logits"},
    )
    forward = {"method": "forward", "method_output_name": "logits"}
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "text-generation",
            "modality_config": {"text": forward, "message": forward | {"format": "flat"}},
            "module_output_name": "causal_logits",
        },
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "CrossEncoder",
            "activation_fn": "torch.nn.modules.linear.Identity",
            "prompts": {"query": INSTRUCTION},
            "default_prompt_name": "query",
        },
    )
