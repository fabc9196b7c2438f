# make demo   recordings -> teacher -> student -> WAV and a page to look at and listen to (about 20 minutes on two cores)
# make test   ruff, mypy and the test-suite (at most 12 minutes on two cores)
# make weights CORPUS=dir   weights as they are shipped, from a corpus folder: hours on a CPU; an interrupted run goes on.
#   PREPARE="dir ... --options": more folders, and options of scripts/prepare_data.py, such as lists of what is held out
# make gpu    on a machine with a CUDA GPU: the tests that need one, then the speed of students and samplers, to runs/gpu
# All make their own virtual environment first. PYTHON=python3.12 chooses the interpreter, VENV=dir the place.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.10 || command -v python3)
VENV ?= .venv
BIN = $(VENV)/bin
OUT ?= runs/demo
WEIGHTS ?= runs/weights
GPU ?= runs/gpu
CONFIGS ?= configs
LICENCE ?= CC0-1.0

.PHONY: demo weights gpu test test-all lint format environment clean

environment: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@echo "Environment: $(VENV), from $(PYTHON). Installing (torch is large: a few minutes the first time)."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

demo: environment
	$(BIN)/python scripts/demo.py --out "$(OUT)"

weights: environment
	@test -n "$(CORPUS)" || { echo "make weights: found no CORPUS, expected CORPUS=DIR, a corpus folder" >&2; exit 2; }
	$(BIN)/python scripts/prepare_data.py --root "$(CORPUS)" $(PREPARE) --out "$(WEIGHTS)/data"
	$(BIN)/python scripts/train_pitch.py --config $(CONFIGS)/pitch.yaml --data.root "$(WEIGHTS)/data" --out "$(WEIGHTS)/pitch"
	$(BIN)/python scripts/train_teacher.py --config $(CONFIGS)/kathleen_teacher.yaml --data.root "$(WEIGHTS)/data" \
		--out "$(WEIGHTS)/teacher"
	$(BIN)/python scripts/train_student.py --config $(CONFIGS)/kathleen_student.yaml --teacher "$(WEIGHTS)/teacher" \
		--pitch "$(WEIGHTS)/pitch" --data.root "$(WEIGHTS)/data" --out "$(WEIGHTS)/student" $(DISTIL)
	$(BIN)/python scripts/train_student.py --config $(CONFIGS)/kathleen_textbook.yaml --teacher "$(WEIGHTS)/teacher" \
		--data.root "$(WEIGHTS)/data" --out "$(WEIGHTS)/student_textbook" $(DISTIL)
	$(BIN)/python scripts/train_teacher.py --config $(CONFIGS)/kathleen_gaussian_teacher.yaml --init "$(WEIGHTS)/teacher" \
		--data.root "$(WEIGHTS)/data" --out "$(WEIGHTS)/teacher_gaussian"
	$(BIN)/python scripts/train_student.py --config $(CONFIGS)/kathleen_gaussian_student.yaml --init "$(WEIGHTS)/student" \
		--teacher "$(WEIGHTS)/teacher_gaussian" --data.root "$(WEIGHTS)/data" --out "$(WEIGHTS)/student_gaussian" $(DISTIL)
	set -e; for steps in 0 32; do $(BIN)/python scripts/evaluate.py $(patsubst %,"$(WEIGHTS)/%",teacher student \
		student_textbook teacher_gaussian student_gaussian) --data "$(WEIGHTS)/data" --clips 20 --projection $$steps \
		--out "$(WEIGHTS)/evaluation$$steps" --overwrite; done
	set -e; ship() { $(BIN)/python scripts/ship.py "$(WEIGHTS)/$$1" --name $$1 --corpus "$(WEIGHTS)/data" \
		--licence "$(LICENCE)" --metrics "$(WEIGHTS)/evaluation0/metrics.json" \
		"$(WEIGHTS)/evaluation32/metrics.json" --out "$(WEIGHTS)/$$1.safetensors" \
		--overwrite $${2:+--init "$(WEIGHTS)/$$2.safetensors"} $${3:+--teacher "$(WEIGHTS)/$$3"}; }; \
	ship teacher; \
	ship student "" teacher; \
	ship student_textbook "" teacher; \
	ship teacher_gaussian teacher; \
	ship student_gaussian student teacher_gaussian

gpu: environment
	@$(BIN)/python -c "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 2)" \
		|| { echo "make gpu: found no CUDA GPU that torch can use, expected one" >&2; exit 2; }
	$(BIN)/python -m pytest tests/test_gpu.py
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python scripts/benchmark.py --nets student --device cuda --seconds 5 --lengths 0.5,1,20 --batches 8,32 \
		--methods parallel,cudagraph,compile,triton,triton16 --out "$(GPU)/students.json" --overwrite
	$(BIN)/python scripts/benchmark.py --nets small --device cuda --seconds 5 --budget 60 --batches 8,128 \
		--methods cached,fused,graph,persistent --out "$(GPU)/teachers.json" --overwrite

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-all: lint
	$(BIN)/python -m pytest

format: environment
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
