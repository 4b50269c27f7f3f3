"""Makes the files peers need of the model, from the model; runs in a peer's own environment.

python export.py onnx MODEL_FOLDER OUT_FILE     with torch, sentence-transformers' libraries, onnx
python export.py onnx-scores MODEL_FOLDER OUT_FILE   the same, of a reranker
python export.py onnx-int8 MODEL_FOLDER OUT_FILE     of the former, with onnxruntime, onnx
python export.py openvino-int8 MODEL_FOLDER OUT_FOLDER   of the former, with openvino, nncf
python export.py gguf MODEL_FOLDER OUT_FILE     with NumPy, safetensors, gguf
python export.py gguf-q8 MODEL_FOLDER OUT_FILE  the same, in Q8_0
python export.py gguf-scores MODEL_FOLDER OUT_FILE   the same as gguf, of a reranker
python export.py reference MODEL_FOLDER OUT_FILE     vectors, with sentence-transformers
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TEXTS = ROOT / "tests" / "reference" / "texts.json"
CALIBRATING = 300
"""How many sentences of the documentation int8 is calibrated with."""


def export_onnx(folder: Path, out: Path) -> None:
    """Export the encoder up to its hidden states, in float32, for any batch and any length."""
    from transformers import AutoModel

    _export_onnx(AutoModel, "last_hidden_state", folder, out)


def export_onnx_scores(folder: Path, out: Path) -> None:
    """Export a reranker up to its logits, in the same way."""
    from transformers import AutoModelForSequenceClassification

    _export_onnx(AutoModelForSequenceClassification, "logits", folder, out)


def _export_onnx(kind: Any, output: str, folder: Path, out: Path) -> None:
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = kind.from_pretrained(
                folder, local_files_only=True, attn_implementation="eager"
            )

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            found = self.model(ids, attention_mask=mask, token_type_ids=types)
            return getattr(found, output)

    names = ("input_ids", "attention_mask", "token_type_ids")
    axes = {0: "batch", 1: "tokens"}
    ids = torch.randint(1000, 2000, (2, 16))
    torch.onnx.export(
        Encoder().float().eval(),
        (ids, torch.ones_like(ids), torch.zeros_like(ids)),
        str(out),
        input_names=list(names),
        output_names=[output],
        dynamic_axes=dict.fromkeys(names, axes)
        | {output: axes if output != "logits" else {0: "batch"}},
        opset_version=17,
        dynamo=False,  # runtimes fuse the attention only in the older exporter's graph
    )


def export_onnx_int8(folder: Path, out: Path) -> None:
    """Quantise the weights by channel; inputs are quantised when they come, by the batch."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(folder / "model.onnx", out, per_channel=True, weight_type=QuantType.QInt8)


def export_openvino_int8(folder: Path, out: Path) -> None:
    """Quantise weights, and inputs by what sentences of the documentation make of them."""
    import nncf
    import numpy as np
    import openvino as ov
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.no_padding()
    pages = (page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md")))
    lines = [line for page in pages for line in page.splitlines() if len(line.split()) > 5]

    def inputs(line: str) -> dict[str, Any]:
        ids = np.array([tokenizer.encode(line).ids])
        kinds = np.ones_like(ids), np.zeros_like(ids)
        return {"input_ids": ids, "attention_mask": kinds[0], "token_type_ids": kinds[1]}

    step = max(1, len(lines) // CALIBRATING)
    quantized = nncf.quantize(
        ov.Core().read_model(folder / "model.onnx"),
        nncf.Dataset(lines[::step][:CALIBRATING], inputs),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=CALIBRATING,
    )
    out.mkdir(exist_ok=True)
    ov.save_model(quantized, out / "model.xml")


def export_reference(folder: Path, out: Path) -> None:
    """The vectors of the tests' texts, in float32."""
    import numpy as np
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True).float()
    texts = json.loads(TEXTS.read_text(encoding="utf-8"))
    with out.open("wb") as file:
        np.save(file, np.concatenate([model.encode([text]) for text in texts]))


def export_gguf_scores(folder: Path, out: Path) -> None:
    """Export a reranker as llama.cpp's `bert`, with BERT's pooler and last layer."""
    export_gguf(folder, out, head={"bert.pooler.dense": "cls", "classifier": "cls.output"})


def export_gguf(
    folder: Path, out: Path, *, q8: bool = False, head: dict[str, str] | None = None
) -> None:
    """Export the encoder as llama.cpp's `bert`, in float32, or with its matrices in Q8_0.

    `head` has llama.cpp's names for layers after the encoder. Without any it gives means.
    """
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(out, "bert")
    writer.add_name(folder.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK if head else gguf.PoolingType.MEAN)
    kinds = gguf.LlamaFileType
    writer.add_file_type(kinds.MOSTLY_Q8_0 if q8 else kinds.ALL_F32)
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_token_list([_phantom_space(word) for word in words])
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    types = (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL)
    writer.add_token_types([types[word in special] for word in words])
    writer.add_bos_token_id(words.index("[CLS]"))
    writer.add_eos_token_id(words.index("[SEP]"))
    writer.add_unk_token_id(words.index("[UNK]"))
    writer.add_sep_token_id(words.index("[SEP]"))
    writer.add_pad_token_id(words.index("[PAD]"))
    writer.add_mask_token_id(words.index("[MASK]"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        layer, _, part = name.rpartition(".")
        renamed = names.get_name(name.removeprefix("bert."), try_suffixes=(".weight", ".bias"))
        if head and layer in head:
            writer.add_tensor(f"{head[layer]}.{part}", tensor.astype("float32"))
        elif renamed and "pooler" not in name and "position_ids" not in name:
            floats = tensor.astype("float32")
            if q8 and floats.ndim == 2 and "position" not in name and "token_type" not in name:
                packing = gguf.GGMLQuantizationType.Q8_0
                writer.add_tensor(renamed, gguf.quants.quantize(floats, packing), raw_dtype=packing)
            else:
                writer.add_tensor(renamed, floats)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _phantom_space(word: str) -> str:
    """llama.cpp marks where words begin, BERT's vocabulary where they continue."""
    if word.startswith("[") and word.endswith("]"):
        return word
    return word[2:] if word.startswith("##") else f"\u2581{word}"


if __name__ == "__main__":
    kind, folder, out = sys.argv[1:]
    {
        "onnx": export_onnx,
        "onnx-scores": export_onnx_scores,
        "onnx-int8": export_onnx_int8,
        "openvino-int8": export_openvino_int8,
        "gguf": export_gguf,
        "gguf-q8": partial(export_gguf, q8=True),
        "gguf-scores": export_gguf_scores,
        "reference": export_reference,
    }[kind](Path(folder), Path(out))
