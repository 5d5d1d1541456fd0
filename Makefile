# The commands that people type. `make` alone lists them.

# Where rustup puts cargo, for shells that have not heard of it yet.
export PATH := $(PATH):$(HOME)/.cargo/bin
target := $(or $(CARGO_TARGET_DIR),target)

.DEFAULT_GOAL := help
.PHONY: help demo test check conformance load

help: ## list the commands
	@awk -F ': ## ' '/^[a-z]+: ## / { printf "%-13s %s\n", $$1, $$2 }' Makefile

demo: ## start everything with a demo organization, on http://127.0.0.1:8080
	@docker/heartbeat installing docker/install
	@docker/heartbeat building cargo build --profile demo --locked --bin sentryops
	$(target)/demo/sentryops up --demo

test: ## run all tests against a private Postgres and Redis
	@docker/install
	cargo build --locked --bin sentryops
	$(target)/debug/sentryops services -- cargo test --locked --workspace

check: ## format, lints, documentation
	@docker/install
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

conformance: ## GraphQL over HTTP, audited from outside by graphql-http and a browser
	@docker/install --browser
	cargo build --release --locked --bin sentryops
	cd loadtests/conformance && npm ci
	node loadtests/conformance/run.mjs --binary $(target)/release/sentryops

load: ## what it costs: time to the first answer, memory, CPU per request beside a peer's, jobs, imported rows and judged assets a second, what is lost
	@docker/install
	cargo build --release --locked --bin sentryops --bin loadtests
	cargo build --release --locked --package workers --example drill
	$(target)/release/loadtests start --binary $(target)/release/sentryops
	$(target)/release/loadtests read --peers --binary $(target)/release/sentryops
	$(target)/release/loadtests import --kill --binary $(target)/release/sentryops
	$(target)/release/loadtests graph --binary $(target)/release/sentryops
	$(target)/release/loadtests scan --edits 200 --report --kill --binary $(target)/release/sentryops
	$(target)/release/loadtests queue --quick --binary $(target)/release/sentryops --drill $(target)/release/examples/drill
