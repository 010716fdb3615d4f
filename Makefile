# Two commands matter: `make demo` and `make test`. Both install what they need and are safe to run again.
SHELL := /bin/bash
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/skillupdate
UV_VERSION := 0.13.9
UV := $(CACHE)/uv-$(UV_VERSION)/bin/uv
PYTHON := .venv/bin/python
EXTRAS := --extra operator --extra trainer --extra serve --group docs

# Programs start by the hundred in a test run: all but the first find their libraries compiled.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

.PHONY: help
help: ## Say what there is
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/synced ## From nothing to a served, verified skill on a cluster of its own (about 30 min the first time, 10 after)
	$(PYTHON) -m tests.e2e.demo

.PHONY: test
test: check ## Everything that fits the machine: checks, then all rungs up to the real cluster
	$(PYTHON) -m pytest

.PHONY: quick
quick: check ## Checks and the rungs that need no cluster
	$(PYTHON) -m pytest -m "not e2e"

.PHONY: check
check: .venv/synced ## Format, lint, types, layers
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

.PHONY: format
format: .venv/synced ## Format and fix what can be fixed
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

.PHONY: crds
crds: .venv/synced ## Carry crds/ to the chart's copy and to docs/api.md
	$(PYTHON) crds/generate.py

.PHONY: metrics
metrics: .venv/synced ## Write the tables of docs/metrics.md from the metrics themselves
	$(PYTHON) docs/generate.py

.PHONY: manifests
manifests: .venv/synced ## Write the chart as plain YAML, charts/plain
	$(PYTHON) -m charts.manifests

.PHONY: dashboards
dashboards: .venv/synced ## Write the chart's Grafana dashboards from charts/dashboards
	$(PYTHON) -m charts.dashboards

.PHONY: docs
docs: .venv/synced ## The documentation as a site, in build/docs; a link that leads nowhere is an error
	.venv/bin/sphinx-build --fail-on-warning --keep-going --quiet --conf-dir docs . build/docs
	@echo "build/docs/index.html"

.PHONY: reasons
reasons: .venv/synced ## Write the table of docs/troubleshooting.md from what `kubectl skill explain` says
	$(PYTHON) docs/reasons.py

.PHONY: wheel
wheel: .venv/synced ## Build the wheel into dist/, install it by itself with each extra, try its commands (gigabytes for the trainer)
	$(PYTHON) -m tests.wheel --uv $(UV) --out dist

.PHONY: pictures
pictures: .venv/synced ## Draw docs/images/kubectl-skill-*.svg anew
	$(PYTHON) -m tests.kubectl_skill.pictures

.PHONY: screenshots
screenshots: .venv/synced ## Draw docs/images anew (installs Debian's chromium, and playwright for this once)
	@command -v chromium || { echo "installing chromium"; apt-get update && apt-get install --yes chromium; }
	$(UV) run --no-sync --with "playwright==1.65.2" python -m tests.screenshots $(REPORT)

.PHONY: chaos
chaos: .venv/synced ## Every fault at every phase of an update's life, into docs/reliability.md (ten minutes on two cores)
	$(PYTHON) -m tests.chaos --write docs/reliability.md

.PHONY: gitops
gitops: .venv/synced ## Argo CD's and Flux's own code apply without end through an update's life (some minutes)
	$(PYTHON) -m pytest tests/gitops tests/operator/api/git_stories.py

.PHONY: targets
targets: .venv/synced ## On the real cluster: every other kind of serving target by its own controller, live adapters, a canary (32 minutes where all is built)
	$(PYTHON) -m pytest -p no:randomly -s tests/e2e/target_stories.py tests/e2e/adapter_stories.py tests/e2e/canary_stories.py

.PHONY: gpu
gpu: .venv/synced ## On an NVIDIA GPU: what it computes against a CPU, twice and resumed; what each thing done only there brings
	$(PYTHON) -m pytest tests/trainer/core/test_gpu.py
	$(PYTHON) -m benchmarks.gpu

.PHONY: fuzz
fuzz: .venv/synced ## Broken documents, 1.5 million, for every reader of others' bytes, into docs/security.md (half an hour; atheris is for Linux and macOS)
	$(UV) run --no-sync --with "atheris==3.0.0" python -m tests.fuzz --write docs/security.md

.PHONY: audit
audit: .venv/synced ## Known holes in what uv.lock pins, asked of api.osv.dev (which this machine has to reach)
	$(UV) audit --frozen --preview-features audit-command

.PHONY: release
release: .venv/synced ## VERSION=0.2.0, and DRY_RUN=1 or REGISTRY=…: wheel, chart, SBOMs, images, sums, commit, tag (CONTRIBUTING.md)
	$(PYTHON) -m release $(VERSION) --uv $(UV) --helm "$$(command -v helm || $(PYTHON) -c 'from tests.cluster.binaries import binary; print(binary("helm"))')" \
		$(if $(DRY_RUN),--dry-run) $(if $(REGISTRY),--registry $(REGISTRY)) $(if $(BASE),--base $(BASE))

.PHONY: down
down: .venv/synced ## Take the demo's and the tests' cluster away (its caches stay)
	$(PYTHON) -m tests.cluster down

.PHONY: clean
clean: ## Remove what was built in the checkout
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis demo-output

$(UV):
	@echo "installing uv $(UV_VERSION) into $(CACHE)"
	python3 -m venv $(CACHE)/uv-$(UV_VERSION) || { echo "python3 with venv is needed: apt-get install python3-venv"; exit 1; }
	$(CACHE)/uv-$(UV_VERSION)/bin/pip install --quiet "uv==$(UV_VERSION)"

.venv/synced: pyproject.toml uv.lock | $(UV)
	$(UV) sync --frozen $(EXTRAS)
	@touch $@
