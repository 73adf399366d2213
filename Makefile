# Every target sets itself up: an environment of its own below the repository, pinned by constraints.txt.
PYTHON ?= python3
light = -e . pytest hypothesis
demo = -e .[export]
test = -e .[images,pdf,export,hub,reference,fast,bench,dev]

.PHONY: demo test check bench
demo: .venv-demo/.done
	.venv-demo/bin/embedpack demo
test: .venv-light/.done .venv-test/.done
	.venv-light/bin/pytest tests/runtime
	.venv-test/bin/pytest tests/export tests/project tests/images tests/benchmarks tests/runtime/scoring/test_hamming.py
check: .venv-test/.done
	.venv-test/bin/ruff check
	.venv-test/bin/ruff format --check
	.venv-test/bin/mypy
bench: .venv-test/.done
	test -d packs/minilm || .venv-test/bin/embedpack demo --keep packs/minilm
	.venv-test/bin/python -m benchmarks speed packs/minilm
	.venv-test/bin/python -m benchmarks footprint packs/minilm

.venv-%/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $($*)
	touch $@
