"""Fine-tune BERT for sentiment: a worked example, and the source of `models/sentiment`.

`python examples/finetune_sentiment.py` trains low-rank updates (LoRA: Hu et al., 2021) of
all-MiniLM-L6-v2 on the rated sentences of `data.py` that are not held out, and writes the adapter
to `examples/sentiment/`: what training changed, under 1 MB in fp16. `merge_sentiment.py` adds it
onto the base again.

What it does, in order: read and split, tokenize, wrap the model, train with a warm-up and a
cosine decay, evaluate on held-out sentences, save.
"""

import argparse
import json
import math
import random
import tempfile
import time
from pathlib import Path

import torch
from data import ROOT, Sentence, minilm, sentences
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    get_cosine_schedule_with_warmup,
)

LABELS = ("negative", "positive")
OUT = ROOT / "examples" / "sentiment"
Examples = list[tuple[list[int], int]]


def load_base() -> torch.nn.Module:
    """The encoder with a fresh two-way head; the head is part of what the adapter stores."""
    return AutoModelForSequenceClassification.from_pretrained(
        minilm(), num_labels=2, id2label=dict(enumerate(LABELS)), dtype=torch.float32
    )


def encode(rows: list[Sentence], tokenizer: PreTrainedTokenizerBase) -> Examples:
    """Token ids and class of each labelled sentence."""
    labelled = [row for row in rows if row.label]
    ids = tokenizer([row.text for row in labelled], truncation=True, max_length=128)["input_ids"]
    return [(tokens, LABELS.index(row.label or "")) for tokens, row in zip(ids, labelled, strict=True)]


def pad(batch: Examples) -> dict[str, torch.Tensor]:
    """Right-pad a batch: input_ids and attention_mask (B, L) int64, labels (B,) int64."""
    longest = max(len(ids) for ids, _ in batch)
    return {
        "input_ids": torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in batch]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in batch]),
        "labels": torch.tensor([label for _, label in batch]),
    }


def batches(examples: Examples, size: int) -> list[Examples]:
    """Batches of like length in random order: little padding, and still a shuffle."""
    order = sorted(examples, key=lambda example: len(example[0]) + random.random() * 4)
    cut = [order[start : start + size] for start in range(0, len(order), size)]
    random.shuffle(cut)
    return cut


def train(model: torch.nn.Module, examples: Examples, *, epochs: int, rate: float, size: int) -> None:
    """AdamW over the trainable weights, 10 % warm-up, then a cosine to zero."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.01)
    steps = epochs * math.ceil(len(examples) / size)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)
    model.train()
    started, step = time.monotonic(), 0
    for epoch in range(epochs):
        for batch in batches(examples, size):
            loss = model(**pad(batch)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % 50 == 0:
                print(
                    f"epoch {epoch + 1}, step {step}/{steps}, loss {loss.item():.3f}, "
                    f"{time.monotonic() - started:.0f} s",
                    flush=True,
                )


@torch.inference_mode()
def accuracy(model: torch.nn.Module, examples: Examples) -> float:
    """Share of examples whose most likely class is the raters'."""
    model.eval()
    examples = sorted(examples, key=lambda example: len(example[0]))
    right = 0
    for start in range(0, len(examples), 64):
        batch = pad(examples[start : start + 64])
        labels = batch.pop("labels")
        right += int((model(**batch).logits.argmax(-1) == labels).sum())
    return right / len(examples)


def save(model: PeftModel, folder: Path) -> None:
    """The adapter alone, in fp16: half the bytes, and no label flips."""
    with tempfile.TemporaryDirectory() as scratch:  # peft writes a model card too, and ours is in the folder
        model.save_pretrained(scratch)
        weights = load_file(Path(scratch) / "adapter_model.safetensors")
        config = json.loads((Path(scratch) / "adapter_config.json").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.half() for name, weight in weights.items()}, folder / "adapter_model.safetensors")
    config["base_model_name_or_path"] = "sentence-transformers/all-MiniLM-L6-v2"
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=6e-4, help="peak learning rate")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    random.seed(options.seed)
    torch.manual_seed(options.seed)

    tokenizer = AutoTokenizer.from_pretrained(minilm())
    rows = list(sentences())
    model = get_peft_model(
        load_base(),
        LoraConfig(
            task_type=TaskType.SEQ_CLS,
            r=options.rank,
            lora_alpha=16,
            lora_dropout=0.05,
            target_modules="all-linear",
            bias="all",
        ),
    )
    model.print_trainable_parameters()
    seen = encode([row for row in rows if not row.held_out], tokenizer)
    train(model, seen, epochs=options.epochs, rate=options.rate, size=options.batch)
    for source in dict.fromkeys(row.source for row in rows):
        held_out = encode([row for row in rows if row.held_out and row.source == source], tokenizer)
        print(f"{source}: {accuracy(model, held_out):.1%} of {len(held_out):,} held-out sentences", flush=True)
    save(model, options.out)


if __name__ == "__main__":
    main()
