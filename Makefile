# Every target sets itself up: an environment of its own below the repository, pinned by constraints.txt.
PYTHON ?= python3
MAKEFLAGS += -j2
coverage = $(if $(COVERAGE),--cov --cov-report=) # make test COVERAGE=yes: with the limits of branch coverage
light = -e . pytest pytest-cov hypothesis
demo = -e .[export]
test = -e .[images,pdf,export,hub,server,reference,fast,bench,dev]
full = tests/benchmarks tests/export tests/fuzz tests/images tests/project tests/server tests/runtime/scoring/test_hamming.py
.PHONY: demo test light full check fuzz bench
demo: .venv-demo/.done
	.venv-demo/bin/embedpack demo
test: light full
	$(if $(COVERAGE),.venv-test/bin/coverage combine --quiet $(foreach part,runtime export,&& .venv-test/bin/coverage report --include='$(part)/*' --fail-under=95 --format=total))
light: .venv-light/.done
	COVERAGE_FILE=.coverage.light .venv-light/bin/pytest $(coverage) tests/runtime
full: .venv-test/.done
	COVERAGE_FILE=.coverage.full .venv-test/bin/pytest -n logical --maxprocesses 4 --dist loadscope --no-loadscope-reorder $(coverage) $(full)
check: .venv-test/.done
	.venv-test/bin/ruff check && .venv-test/bin/ruff format --check && .venv-test/bin/mypy
fuzz: .venv-test/.done
	EMBEDPACK_KILLS=10 .venv-test/bin/pytest -q tests/project/test_kills.py && .venv-test/bin/python -m tests.fuzz
bench: .venv-test/.done
	test -d packs/minilm || .venv-test/bin/embedpack demo --keep packs/minilm && .venv-test/bin/python -m benchmarks speed packs/minilm && .venv-test/bin/python -m benchmarks footprint packs/minilm
.venv-%/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D) && $(@D)/bin/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt $($*) && touch $@
