"""Makes the files peers need of the model, from the model; runs in a peer's own environment.

python export.py onnx MODEL_FOLDER OUT_FILE     with torch, sentence-transformers' libraries, onnx
python export.py onnx-scores MODEL_FOLDER OUT_FILE   the same, of a reranker
python export.py gguf MODEL_FOLDER OUT_FILE     with NumPy, safetensors, gguf
"""

import json
import sys
from pathlib import Path
from typing import Any


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


def export_gguf(folder: Path, out: Path) -> None:
    """Export the encoder as llama.cpp's `bert`, in float32."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(out, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_token_list([_phantom_space(word) for word in words])
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    kinds = (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL)
    writer.add_token_types([kinds[word in special] for word in words])
    writer.add_bos_token_id(words.index("[CLS]"))
    writer.add_eos_token_id(words.index("[SEP]"))
    writer.add_unk_token_id(words.index("[UNK]"))
    writer.add_sep_token_id(words.index("[SEP]"))
    writer.add_pad_token_id(words.index("[PAD]"))
    writer.add_mask_token_id(words.index("[MASK]"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        renamed = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if renamed and "pooler" not in name and "position_ids" not in name:
            writer.add_tensor(renamed, tensor.astype("float32"))
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
    {"onnx": export_onnx, "onnx-scores": export_onnx_scores, "gguf": export_gguf}[kind](
        Path(folder), Path(out)
    )
