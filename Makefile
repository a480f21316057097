GO           ?= go
BIN          := $(CURDIR)/.bin
LINT         := $(BIN)/golangci-lint
LINT_VERSION := 2.15.0
FUZZTIME     ?= 30s
COUNT        ?= 10

# The race detector needs a C compiler; without one these packages are tested without it.
RACE          := $(if $(shell command -v gcc || command -v clang),-race)
RACE_PACKAGES := ./core/... ./adapters/apikey/... ./adapters/authchain/... ./adapters/jwtauth/... \
                 ./adapters/httpapi/... ./adapters/memory/... ./adapters/telemetry/... ./tests/contract/...

.DEFAULT_GOAL := help
.PHONY: help run build image test lint fmt verify generate bench soak fuzz tools redis-server prometheus chromium

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Serve the demo: embedded Redis, two workspaces, curl lines to paste
	@RELAY_DEMO=on exec $(BIN)/relay serve

build: ## Build .bin/relay
	@mkdir -p $(BIN)
	$(GO) build -o $(BIN)/relay ./app/relay

image: ## Build the container image "relay", where there is Docker
	docker build -t relay --build-arg VERSION="$$(git describe --tags --always --dirty)" --build-arg REVISION="$$(git rev-parse HEAD)" .

test: redis-server prometheus chromium ## Run all tests; they start real Redis, Prometheus and Chromium
	$(GO) test -count=1 -timeout 8m ./...
	$(if $(RACE),$(GO) test -race -count=1 -timeout 8m $(RACE_PACKAGES))

lint: tools ## Check style, errors and imports
	$(LINT) run

fmt: tools ## Format the sources
	$(LINT) fmt

verify: ## Check that generated code, module files and documents are up to date
	$(GO) mod tidy -diff
	$(GO) mod verify
	@.ci/generated-is-current
	$(GO) test -count=1 -run '^TestDocumentsListEveryVariable$$' ./app/relay

generate: ## Write the code that is generated from ports and from openapi.yaml
	$(GO) generate ./...

bench: redis-server ## Measure against the yardsticks; prints ratios
	$(GO) run ./tests/bench $(ARGS)

soak: redis-server prometheus chromium ## Repeat the tests that have races to lose, COUNT times, and once at full size those that have one, which needs libfaketime
	$(GO) test $(RACE) -count=$(COUNT) -timeout 60m ./adapters/redisjobs/... ./tests/...
	RELAY_SOAK=full $(GO) test -count=1 -timeout 120m -p 1 -v ./tests/...

fuzz: ## Fuzz each target for FUZZTIME
	@set -e; for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -run '^$$' -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

tools: ## Build the linter into .bin, where it is missing or of another version
	@$(LINT) version 2>/dev/null | grep -qF 'version $(LINT_VERSION) ' || \
		GOBIN=$(BIN) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v$(LINT_VERSION)

redis-server: ## Install a Redis server, where none is and it may
	@.ci/redis-server

prometheus: ## Install Prometheus and promtool, where none is and it may
	@.ci/prometheus

chromium: ## Install a Chromium, where none is and it may
	@.ci/chromium
