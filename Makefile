# Wrenn Sandbox. `make help` lists the targets.
BUILD ?= build/release
JOBS ?= $(shell nproc)
PROGRAMS := wrenn wrenn-cp wrenn-agent envd
CMAKE_FLAGS ?=
TEST_FLAGS ?=
# Settings of .env, when there is one, reach `make dev`, `make dev-agent` and `make migrate-up`.
WITH_ENV := set -a; [ ! -f .env ] || . ./.env; set +a;

.DEFAULT_GOAL := help
.PHONY: help deps configure build build-envd guest test test-unit test-conformance test-functional test-firecracker \
        test-asan test-tsan fuzz check fmt quickstart dev dev-agent migrate-up bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install the Debian packages of scripts/packages.txt that are missing
	@scripts/install-packages.sh

configure:
	@cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Release -DWRENN_OUTPUT_DIR=$(CURDIR)/builds \
	  $(CMAKE_FLAGS) > $(BUILD).configure.log 2>&1 || { cat $(BUILD).configure.log; exit 1; }

build: | build/ configure ## build builds/{wrenn,wrenn-cp,wrenn-agent,envd}
	@cmake --build $(BUILD) -j $(JOBS)

build-envd: | build/ configure ## build builds/envd only
	@cmake --build $(BUILD) -j $(JOBS) --target envd

build/:
	@mkdir -p build

guest: build ## make the guest kernel, initramfs and the template "minimal" below WRENN_DIR
	@scripts/build-guest.sh

test: deps build guest ## every test: unit, Connect conformance, functional on real VMs, Firecracker in the KVM lab
	@scripts/run-tests.py --build $(BUILD) $(TEST_FLAGS)

test-unit: build ## unit tests only
	@scripts/run-tests.py --build $(BUILD) unit

test-conformance: build ## the Connect conformance suite only
	@scripts/run-tests.py --build $(BUILD) conformance

test-functional: build guest ## tests on real VMs only
	@scripts/run-tests.py --build $(BUILD) functional

test-firecracker: build guest ## all tests on VMs with Firecracker, in the KVM lab; `make test` runs a part of them
	@scripts/run-tests.py --build $(BUILD) firecracker-all

test-asan: guest ## unit and functional tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@scripts/sanitize.sh address

test-tsan: guest ## unit and functional tests under ThreadSanitizer
	@scripts/sanitize.sh thread

fuzz: ## fuzz every parser for FUZZ_SECONDS (600)
	@scripts/fuzz.sh $(or $(FUZZ_SECONDS),600)

check: | build/ configure ## format, layers, headers, house rules, clang-tidy
	@scripts/check.py --build $(BUILD)

fmt: ## format every C++ file
	@git ls-files -zco --exclude-standard 'src/*.h' 'src/*.cc' 'tests/*.h' 'tests/*.cc' 'bench/*.h' 'bench/*.cc' \
	  'fuzz/*.cc' 'cmake/*.h' | xargs -0 -r clang-format-19 -i

quickstart: deps build guest ## from nothing to a running sandbox: start the service and show a demo
	@scripts/quickstart.sh

dev: build ## control plane and agent in the foreground, with .env
	@$(WITH_ENV) exec builds/wrenn up

dev-agent: build ## the host agent alone in the foreground, with .env
	@$(WITH_ENV) exec builds/wrenn-agent serve

migrate-up: build ## bring the database of DATABASE_URL to the newest schema
	@$(WITH_ENV) exec builds/wrenn-cp migrate

bench: build guest ## benchmarks on a real VM
	@bench/run.sh

clean: ## remove everything the build made in this checkout
	@rm -rf build/release build/sanitize-* build/fuzz build/*.configure.log build/check-cache builds
