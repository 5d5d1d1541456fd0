# Commands for development. `make` alone lists them.

# Folder in which rustup installs cargo, for shells whose PATH lacks it.
export PATH := $(PATH):$(HOME)/.cargo/bin
target := $(or $(CARGO_TARGET_DIR),target)

.DEFAULT_GOAL := help
.PHONY: help demo test check conformance load

help: ## list the commands
	@awk -F ': ## ' '/^[a-z]+: ## / { printf "%-13s %s\n", $$1, $$2 }' Makefile

demo: ## build and start everything with a demo organization, on http://127.0.0.1:8080
	@docker/heartbeat installing docker/install
	@docker/heartbeat building cargo build --profile demo --locked --bin sentryops
	$(target)/demo/sentryops up --demo

test: ## run all tests against a private Postgres and Redis
	@docker/install
	cargo build --locked --bin sentryops
	$(target)/debug/sentryops services -- cargo test --locked --workspace

check: ## check format, lints and documentation
	@docker/install
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

conformance: ## audit GraphQL over HTTP from outside, with graphql-http, client libraries and a browser
	@docker/install --browser
	cargo build --release --locked --bin sentryops
	cd loadtests/conformance && npm ci
	node loadtests/conformance/run.mjs --binary $(target)/release/sentryops

load: ## measure start time, memory, CPU per request beside a peer, jobs, imported rows and evaluated assets per second, lost work
	@docker/install
	cargo build --release --locked --bin sentryops --bin loadtests
	cargo build --release --locked --package workers --example drill
	$(target)/release/loadtests start --binary $(target)/release/sentryops
	$(target)/release/loadtests read --peers --binary $(target)/release/sentryops
	$(target)/release/loadtests read --attack --binary $(target)/release/sentryops
	$(target)/release/loadtests import --kill --binary $(target)/release/sentryops
	$(target)/release/loadtests graph --binary $(target)/release/sentryops
	$(target)/release/loadtests scan --edits 200 --report --kill --binary $(target)/release/sentryops
	$(target)/release/loadtests queue --quick --binary $(target)/release/sentryops --drill $(target)/release/examples/drill
