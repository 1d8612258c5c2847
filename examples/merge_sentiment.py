"""Add the sentiment adapter onto its base: a full checkpoint in `build/checkpoints/sentiment`."""

import torch
from data import BUILD, minilm
from finetune_sentiment import OUT, load_base
from peft import PeftModel
from transformers import AutoTokenizer


def main() -> None:
    """Merge and save, in float32."""
    model = PeftModel.from_pretrained(load_base(), OUT).merge_and_unload().to(torch.float32)
    folder = BUILD / "checkpoints" / "sentiment"
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(minilm()).save_pretrained(folder)
    print(f"merged checkpoint: {folder}")


if __name__ == "__main__":
    main()
