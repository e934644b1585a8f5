# make        shows the targets
# make test   is what CI runs
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)
LINT     := bin/golangci-lint-v2.15.0
VULN     := bin/govulncheck-v1.9.0

.DEFAULT_GOAL := help
.PHONY: help build test test-deps lint fuzz crash bench bench-peers demo cover release docs clean

help: ## Show this
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/leat for this machine
	CGO_ENABLED=0 $(GO) build -ldflags '$(LDFLAGS)' -o bin/leat ./cmd/leat

test-deps: ## Install what the tests need (apt-get as root, mvn, npm, pip); quick when all is there
	./hack/test-deps

# LEAT_TEST_STRICT: a part that is missing fails its tests here, where all parts were just installed.
WITH_DEPS = LEAT_TEST_STRICT=1 LEAT_TEST_PYTHON=$$(./hack/test-deps where)/python/bin/python
# What only starts the built binary, and judges what it did, has nothing for the race detector to find: the binary is not built with it.
BLACK_BOX = ./test/crash ./test/way
# The packages that take longest come first, so that none of them is alone at the end.
LONGEST = ./internal/pipeline ./internal/lake ./internal/mirror ./internal/postgres ./internal/bucket ./internal/format ./internal/dump
# One binary for all packages; go vet has looked already; and a process of the race detector need not sleep for a second before it ends.
WITH_BINARY = $(WITH_DEPS) LEAT_TEST_BINARY=$(CURDIR)/bin/leat-test GORACE=atexit_sleep_ms=0
test: test-deps ## Run all tests against real servers, with the race detector
	CGO_ENABLED=0 $(GO) vet ./...
	CGO_ENABLED=0 $(GO) build -ldflags '-s -w' -o bin/leat-test ./cmd/leat
	failed=0; \
	$(WITH_BINARY) CGO_ENABLED=0 $(GO) test -vet=off -timeout 40m $(BLACK_BOX) & black_box=$$!; \
	$(WITH_BINARY) $(GO) test -vet=off -race -timeout 40m $(LONGEST) $$($(GO) list ./... | grep -v -e /test/crash$$ -e /test/way$$) || failed=1; \
	wait $$black_box || failed=1; \
	exit $$failed

lint: $(LINT) $(VULN) ## Run golangci-lint, import rules included, and govulncheck where its database can be had
	$(LINT) run ./...
	status=0; $(VULN) ./cmd/leat || status=$$?; \
	case $$status in 0) ;; 3) exit 3;; *) echo "govulncheck: its database cannot be reached: nothing was checked" >&2;; esac

$(LINT):
	GOBIN=$(CURDIR)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(patsubst bin/golangci-lint-%,%,$@)
	mv bin/golangci-lint $@

$(VULN):
	GOBIN=$(CURDIR)/bin $(GO) install golang.org/x/vuln/cmd/govulncheck@$(patsubst bin/govulncheck-%,%,$@)
	mv bin/govulncheck $@

fuzz: ## Run every fuzz target for a minute (FUZZTIME=10m for longer)
	./hack/fuzz

crash: test-deps ## Run the long kill tests, those of the largest values, and whole matrices
	$(WITH_DEPS) LEAT_TEST_LONG=1 CGO_ENABLED=0 $(GO) test -count=1 -v -timeout 4h ./test/crash
	$(WITH_DEPS) LEAT_TEST_LONG=1 CGO_ENABLED=0 $(GO) test -count=1 -v -timeout 1h ./test/way -run 'LargeValues|RowsOfPartitions|FiltersFind'
	$(WITH_DEPS) LEAT_TEST_LONG=1 CGO_ENABLED=0 $(GO) test -count=1 -v -timeout 1h ./internal/dump ./internal/format -run 'OnEveryMajor|OthersFind'
	$(WITH_DEPS) LEAT_TEST_LONG=1 CGO_ENABLED=0 $(GO) test -count=1 -v -timeout 1h ./internal/pipeline -run 'GeneratedColumns|WhatTheWAL'

bench: test-deps ## Measure speed and memory against COPY, gzip, pigz and pg_dump (BENCH='-n 1 -only parquet' for less)
	CGO_ENABLED=0 $(GO) run ./bench $(BENCH)

bench-peers: test-deps ## Measure against DuckDB, ADBC, connectorx, Polars, chdb, Spark, dlt, pg_dump and Debezium
	./hack/bench-peers
	CGO_ENABLED=0 $(GO) run ./bench -peers $$(./hack/bench-peers where) -only peers-dump,peers-types,peers-changes $(BENCH)

demo: build ## Dump a sample shop into an S3 bucket, all on this machine (DEMO_KEEP=1 keeps it running)
	@CGO_ENABLED=0 $(GO) run ./demo

cover: test-deps ## Run all tests and show which code they reach
	mkdir -p bin
	$(WITH_DEPS) $(GO) test -timeout 20m -coverpkg=./cmd/...,./internal/... -coverprofile=bin/cover.out ./...
	$(GO) tool cover -func=bin/cover.out | tail -n 1
	$(GO) tool cover -html=bin/cover.out -o bin/cover.html

release: ## Build dist/ for linux/amd64 and linux/arm64, with checksums
	rm -rf dist && mkdir dist
	for arch in amd64 arm64; do \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o dist/leat-linux-$$arch ./cmd/leat; \
	done
	cd dist && sha256sum leat-* >SHA256SUMS && cat SHA256SUMS

# Each generated page is written by the test that also checks it.
docs: test-deps ## Write the generated pages below docs/ anew
	packages=$$(grep -rl --include='*_test.go' 'flag.Bool("update"' cmd internal test | xargs -r -n1 dirname | sort -u | sed 's|^|./|'); \
	$(WITH_DEPS) $(GO) test -count=1 $$packages -update

clean: ## Remove what was built; the cache of test parts stays
	rm -rf bin dist
