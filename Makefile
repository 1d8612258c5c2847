# Everything runs in .venv, which `make setup` makes; every target makes what it needs.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
RUNTIME := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
MODEL ?=
VITS := fashion inpaint upscale
SAMPLES_fashion := fashion
SAMPLES_inpaint := fashion
SAMPLES_upscale := photographs
OPTIONS_fashion := --int8
OUT ?=
BENCH ?=

.DEFAULT_GOAL := help
.PHONY: help setup export export-bert export-vit export-minilm data demo quality bench bench-gpu
.PHONY: test test-long test-families test-interchange faults check audit docs format clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/ready ## Make .venv with everything pinned (extra `gpu` where nvidia-smi answers)

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tfbatch needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --editable '.[$(RUNTIME),openvino,cloud,export,examples,dev]'
	$(BIN)/python -m compileall -q pipeline export  # as pip does with what is not editable
	@touch $@

ifeq ($(MODEL),)
export: export-bert export-vit ## Export the default models: models/sentiment, fashion, inpaint and upscale
export-bert: models/sentiment/tfbatch.json ## Export a BERT: MODEL=folder or Hub id, OUT=bundle; else the default
export-vit: $(VITS:%=models/%/tfbatch.json) ## Export a ViT: MODEL=folder or Hub id, OUT=bundle; else the defaults
else
export-bert export-vit export: setup
	$(BIN)/tfbatch export $(MODEL) -o $(or $(OUT),models/$(notdir $(patsubst %/,%,$(MODEL))))
endif

export-minilm: models/minilm/tfbatch.json ## Export all-MiniLM-L6-v2, which embeds sentences, to models/minilm

models/sentiment/tfbatch.json: build/data/ready examples/merge_sentiment.py examples/sentiment/adapter_model.safetensors
	$(BIN)/python examples/merge_sentiment.py
	$(BIN)/tfbatch export build/checkpoints/sentiment --overwrite --int8 -o models/sentiment \
	  --samples build/data/reviews.parquet --samples-column text

models/minilm/tfbatch.json: build/data/ready examples/pool_minilm.py
	$(BIN)/python examples/pool_minilm.py
	$(BIN)/tfbatch export build/checkpoints/minilm --overwrite -o models/minilm \
	  --samples build/data/reviews.parquet --samples-column text

models/%/tfbatch.json: examples/%/model.safetensors build/data/ready
	$(BIN)/tfbatch export examples/$* --overwrite $(OPTIONS_$*) -o models/$* --samples build/data/$(SAMPLES_$*).parquet \
	  --samples-column image

data: build/data/ready ## Make the demo's Parquet files in build/data

build/data/ready: .venv/ready examples/data.py examples/photographs.py examples/fashion/sample.parquet
	$(BIN)/python examples/data.py
	@touch $@

demo: export data ## Score real reviews and pictures, upscale photographs, mend torn pictures
	$(BIN)/python examples/demo.py

quality: export ## How good the models that make pictures are, against the mean image and bicubic
	$(BIN)/python examples/quality.py

bench: setup export export-minilm data ## Compare with transformers, torch, optimum, Ray and OpenVINO: BENCH='--workloads reviews'
	$(BIN)/python -m benchmarks $(BENCH)

bench-gpu: setup export-minilm data ## Compare with torch and torch.compile in fp16 on a GPU: BENCH='--models bert-base'
	$(BIN)/python -m benchmarks.gpu $(BENCH)

test: setup check export export-minilm data ## Check and test everything
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-long: setup ## Thousands of pictures of all sizes: minutes, and a gigabyte of disk
	$(BIN)/python -m pytest -m long -s

test-families: setup data ## Export every model family, task and variant, and compare with the Hub's pipelines: minutes
	$(BIN)/python -m pytest -m families

test-interchange: setup data export-minilm build/interchange/ready ## Load bundles in optimum and run what it exports: minutes, and 1.7 GB
	$(BIN)/python -m pytest -m interchange

build/interchange/ready: tests/requirements/interchange.txt # in an environment of its own: it pins an older transformers
	$(PYTHON) -m venv --clear build/interchange
	build/interchange/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@

faults: setup ## Kill, fill the disk, cut the power: minutes; as root and with strace, else some is skipped
	$(BIN)/python -m pytest -m faults

docs: setup ## Write docs/models.md, which families and tasks say of themselves
	PYTHONPATH=pipeline:export $(BIN)/python -m tfbatch_export.page > docs/models.md

check: setup ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: setup build/audit/ready ## Ask the advisory service of PyPI about all that the run stage installs
	$(BIN)/python .ci/run_stage_packages.py > build/audit/packages.txt
	build/audit/bin/pip-audit --strict --no-deps --disable-pip -r build/audit/packages.txt

build/audit/ready: # in an environment of its own; --strict, since what cannot be looked up is not safe
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@touch $@

format: setup ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what was built, but not .venv
	rm -rf build models dist *-predictions
