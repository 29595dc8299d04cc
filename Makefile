# make run      set up, generate a seeded log pair and judge it
# make serve    set up and serve a demo at http://127.0.0.1:8000, until Ctrl-C; ARGS='--config FILE' for your own logs
# make test     set up and run the tests, three beside each other; PROFILE=full for all of them, the slow ones too, and
#               more examples of each property
# make soak     100 kills and 40 rotations of a live run, death at each write, five times the examples of each property,
#               fresh ones every time; LOGS=DIR for logs of your own
# make bench    how fast everything is; ARGS='--cases load,stream --runs 3' for some of it
# make scale    what more machines would bring: measures, simulates, writes docs/scale.md; about ten minutes
# make evaluate  how well each detector finds the anomalies of each data set: writes docs/evaluation.md;
#               BENCHMARKS=DIR for the public tables and series that lie there, too: writes docs/benchmarks.md, nab.md
# make notebook  run notebooks/tour.ipynb and store its outputs in it
# make servers  install Kafka, PostgreSQL, Redis, NATS, InfluxDB, VictoriaMetrics, Prometheus and Alertmanager and run
#               them, on the standard ports and with empty data, until Ctrl-C; make servers-install only installs them,
#               for the tests
# make check    lint and types
# make constraints   resolve the pinned versions anew
# make clean    remove the environment and the demo

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
PROFILE ?= short

run: $(VENV)/.run
	$(VENV)/bin/peerwatch generate $(DEMO) --force
	$(VENV)/bin/peerwatch run $(DEMO)/batch_log.json $(DEMO)/stream_log.json $(DEMO)/flagged_purchases.json

serve: $(VENV)/.serve
	$(VENV)/bin/peerwatch serve $(ARGS)

test: $(VENV)/.dev
	$(VENV)/bin/python -m pytest -n 3 --dist worksteal --hypothesis-profile=$(PROFILE)$(if $(filter short,$(PROFILE)), -m 'not slow')

soak: $(VENV)/.dev
	$(VENV)/bin/python tests/soak.py $(if $(LOGS),--logs $(LOGS))
	$(VENV)/bin/python tests/fault_walk.py --every
	$(VENV)/bin/python tests/fault_walk.py --every --learned
	$(VENV)/bin/python -m pytest -n 3 --dist worksteal -m hypothesis --hypothesis-profile=soak

bench: $(VENV)/.dev
	$(VENV)/bin/python benchmarks/bench.py $(ARGS)
	$(if $(ARGS),,$(VENV)/bin/python benchmarks/service.py)

scale: $(VENV)/.dev
	$(VENV)/bin/python benchmarks/scale.py $(ARGS)

evaluate: $(VENV)/.dev
	$(VENV)/bin/peerwatch evaluate --write docs --force
	$(if $(BENCHMARKS),$(VENV)/bin/peerwatch evaluate --benchmarks $(BENCHMARKS) --write docs --force)

notebook: $(VENV)/.dev
	$(VENV)/bin/python tests/run_notebook.py

servers: servers-install
	@$(VENV)/bin/python tests/servers.py

servers-install: $(VENV)/.dev $(VENV)/.servers

check: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy tests benchmarks monitoring

constraints: $(VENV)/.dev
	$(VENV)/bin/pip install --quiet uv
	$(VENV)/bin/uv pip compile --universal --python-version 3.11 --no-header --no-annotate --upgrade \
		--extra dev pyproject.toml -o constraints.txt

clean:
	rm -rf $(VENV) $(DEMO)

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 15) else \
		"peerwatch needs Python 3.11 to 3.14, this is %d.%d; try make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/pip pyproject.toml constraints.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.serve: $(VENV)/bin/pip pyproject.toml constraints.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[serve]'
	@touch $@ $(VENV)/.run

$(VENV)/.dev: $(VENV)/bin/pip pyproject.toml constraints.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.run $(VENV)/.serve

$(VENV)/.servers: $(VENV)/bin/pip tests/install_servers.sh tests/kafka/pom.xml
	tests/install_servers.sh $(abspath $(VENV))/kafka
	@touch $@

.PHONY: run serve test soak bench scale evaluate notebook servers servers-install check constraints clean
