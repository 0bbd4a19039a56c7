# Portcullis: what can be done here. `make` alone lists it.

CARGO ?= cargo
PORTCULLIS = target/debug/portcullis
CARGO_DENY_VERSION = 0.20.2

# Built beside the sources, wherever the environment would put it: other targets name the files.
export CARGO_TARGET_DIR = target

.DEFAULT_GOAL := help
.PHONY: help build release check fmt lint docs deps quick test control-plane helm bench bench-engine bench-scale bench-server bench-memory bench-cluster siege fuzz certs-dev demo demo-cluster run update clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  \033[1m%-13s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the program
	$(CARGO) build --locked

release: ## build the program as it is shipped
	$(CARGO) build --locked --release

.PHONY: image-root
image-root: ## assemble the image's root file system, as deploy/Dockerfile does, in target/image-root
	deploy/image-root target/image-root

check: fmt lint docs deps ## formatting, lints, documentation, dependency policy

fmt:
	$(CARGO) fmt --check

lint:
	$(CARGO) clippy --locked --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --lib --document-private-items

deps:
	@$(CARGO) deny --version 2>/dev/null | grep -q ' $(CARGO_DENY_VERSION)$$' || { \
		echo 'cargo-deny $(CARGO_DENY_VERSION) is not installed: installing it'; \
		$(CARGO) install --locked cargo-deny --version $(CARGO_DENY_VERSION); }
	$(CARGO) deny --locked --config .cargo/deny.toml check bans licenses sources

quick: ## what the author of a rule needs often: the library's tests, who imports whom, reviews, meaning
	$(CARGO) test --locked --lib --test architecture --test admission --test semantics

test: control-plane helm ## every test
	$(CARGO) test --locked

control-plane: ## build etcd, an API server and kubectl for the tests, once
	@tests/control-plane/build > /dev/null

helm: ## build Helm for the tests of the chart, once
	@tests/helm/build > /dev/null

bench: bench-engine bench-scale bench-server bench-memory bench-cluster ## measure speed and size

bench-engine: ## the engine alone: a policy change, a full check, memory
	$(CARGO) bench --locked --bench engine

bench-scale: ## 100,000 pods through the index, and a review among them
	$(CARGO) bench --locked --bench scale

bench-server: ## the server under load, against a floor
	$(CARGO) bench --locked --bench load

bench-memory: ## the most memory that the worst bodies make the server hold
	$(CARGO) bench --locked --bench memory

bench-cluster: control-plane ## what the gate adds to a create through a real API server
	$(CARGO) bench --locked --bench api_server

siege: ## 12,000 connections from one address, and what they cost everybody else
	$(CARGO) test --locked --release --test server -- --ignored --nocapture siege

fuzz: ## arbitrary bytes, reviews and sequences of requests, for a bounded time
	tests/fuzz/run

certs-dev: certs-dev/tls.crt ## certificates for experiments on this machine

certs-dev/tls.crt:
	$(CARGO) run --locked --quiet --example dev-certs -- certs-dev

demo: build certs-dev ## the gate at work: reviews of each rule over HTTPS, denied, fixed, allowed
	$(CARGO) run --locked --quiet --example demo

demo-cluster: build control-plane ## the gate on a real API server, and a person with kubectl
	$(CARGO) run --locked --quiet --example demo-cluster

run: build certs-dev ## the gate over the example cluster, until Ctrl-C
	@echo 'Probes:   curl -s http://127.0.0.1:8080/readyz?verbose'
	@echo 'A review: curl -s --cacert certs-dev/ca.crt -H "Content-Type: application/json" \'
	@echo '            --data @deploy/demo/review.json https://localhost:8443/validate'
	@echo
	$(PORTCULLIS) serve --cluster deploy/demo/cluster --tls-cert certs-dev/tls.crt --tls-key certs-dev/tls.key --linger 0

update: helm ## write anew what is generated: the README's tables, parts of the chart, the plain manifests
	UPDATE_GENERATED=1 $(CARGO) test --locked --test documentation
	UPDATE_GENERATED=1 $(CARGO) test --locked --test chart generated

clean: ## remove what was built
	$(CARGO) clean
	rm -f certs-dev/*.crt certs-dev/*.key
