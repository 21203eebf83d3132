# Evenkeel. `make help` lists the targets; the README's two commands are `make demo` and `make test`.
SHELL := /bin/bash -o pipefail
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)
GOLANGCI := v2.15.0
# Namespaces, cgroups and BPF need root: what is built as the user is run with sudo.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -E)
EXEC := $(if $(SUDO),-exec "$(SUDO)")
COMMANDS = ./cmd/...
CONTROLS := ignore_stamp miss_passes ignore_weights
PROCS ?= 2
CNI_PLUGINS := $(addprefix github.com/containernetworking/plugins/plugins/,main/bridge main/ptp main/loopback \
	ipam/host-local meta/portmap meta/bandwidth meta/tuning)
GINKGO := bin/ginkgo --randomize-all --fail-on-pending --fail-on-empty --poll-progress-after=60s
export CGO_ENABLED ?= 0

.DEFAULT_GOAL := help
.PHONY: help build demo test unit e2e chaos bench microbench generate lint fmt clean need-go need-clang need-kernel need-chromium need-runtime
help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: need-go ## the binaries, in bin/
	@go list -deps $(COMMANDS) >/dev/null & go build -trimpath net/http net/rpc go/build debug/elf; wait # while modules are fetched
	go build -trimpath -ldflags "-X main.release=$(VERSION)" -o bin/ $(COMMANDS)

demo: COMMANDS = ./cmd/evenkeel ./cmd/evenkeel-chaos
demo: build ## watch two data planes serve while their agents are killed; under two minutes
	$(SUDO) bin/evenkeel demo $(ARGS)

test: unit e2e chaos ## every test: beside the code, then the built binaries end to end
unit: need-go need-chromium
	@s=$$SECONDS; go vet ./... && go test -p $(PROCS) $(EXEC) ./upgrade ./netsim/fault \
		$$(go list ./... | grep -Ev '/(e2e|chaos|upgrade|netsim/fault)$$') && \
		go test -tags control_in_place $(EXEC) -run TestReadersSeeNoHalfRecord ./engine && echo "unit: $$((SECONDS - s)) s"

e2e: build need-kernel need-runtime ## the built binaries on simulated nodes; ARGS=--label-filter=tier:nightly for the rest
	@upgrade/releases.sh bin/releases $(if $(findstring nightly,$(ARGS)),,oldest)
	@for c in $(CONTROLS); do go build -trimpath -tags control_$$c -o bin/control/$$c/ ./cmd/evenkeel || exit 1; done
	@mkdir -p bin/cni && go build -trimpath -o bin/cni/ $(CNI_PLUGINS) && go build -o bin/ginkgo github.com/onsi/ginkgo/v2/ginkgo
	@go build -trimpath -o bin/e2e-client ./e2e/client && go test -c -o bin/e2e.test ./e2e
	@s=$$SECONDS; EVENKEEL_BIN=$(CURDIR)/bin $(SUDO) $(GINKGO) --procs=$(PROCS) --timeout=20m --label-filter='!tier:nightly' \
		$(ARGS) bin/e2e.test && echo "e2e: $$((SECONDS - s)) s"

chaos: build ## what breaks traffic, but for the specs that take a night: ARGS=--label-filter=tier:nightly
	@go build -trimpath -tags control_miss_passes -o bin/control/miss_passes/ ./cmd/evenkeel && \
		go build -o bin/ginkgo github.com/onsi/ginkgo/v2/ginkgo && go test -c -o bin/chaos.test ./chaos
	@s=$$SECONDS; EVENKEEL_BIN=$(CURDIR)/bin $(SUDO) $(GINKGO) --timeout=60m --label-filter='!tier:nightly' $(ARGS) \
		bin/chaos.test && echo "chaos: $$((SECONDS - s)) s"

bench: build need-kernel ## what the mesh costs, against no mesh and NAT; ARGS=--quick takes 5 minutes
	$(SUDO) bin/evenkeel bench $(ARGS)
microbench: need-go ## benchmarks of the packages
	go test $(EXEC) -run '^$$' -bench . -benchmem ./...
generate: need-go need-clang ## compile the eBPF objects and their Go types (clang-19)
	BPF2GO_CFLAGS="-I/usr/include/$$(gcc -print-multiarch)" go generate ./...

lint: need-go need-clang .tools/golangci-lint-$(GOLANGCI) ## go vet, golangci-lint, clang-format
	go vet ./...
	.tools/golangci-lint-$(GOLANGCI) run --allow-parallel-runners ./...
	clang-format-19 --dry-run --Werror $$(git ls-files '*.[ch]')
.tools/golangci-lint-$(GOLANGCI):
	GOBIN=$(CURDIR)/.tools go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI) && mv .tools/golangci-lint $@
fmt: need-clang ## gofmt and clang-format
	gofmt -w $$(git ls-files '*.go' | grep -v _bpfel.go)
	clang-format-19 -i $$(git ls-files '*.[ch]')
clean: ## remove what was built
	rm -rf bin .tools

# $(call packages,COMMANDS AND FILES,PACKAGES THAT HAVE THEM,WHAT FOR)
packages = @for c in $(1); do command -v $$c >/dev/null || test -e $$c || { $(SUDO) apt-get update -q && \
	$(SUDO) apt-get install -qy $(2) && break; } || { echo "install $(2): $(3)" >&2; exit 1; }; done
need-go:
	@command -v go >/dev/null || { echo "Go 1.26 or newer is needed: https://go.dev/dl" >&2; exit 1; }
need-clang:
	$(call packages,clang-19 llvm-strip-19 clang-format-19 /usr/include/bpf/bpf_helpers.h gcc,clang-19 llvm-19 clang-format-19 libbpf-dev gcc,only generate and lint and fmt need them)
need-chromium:
	$(call packages,$(or $(firstword $(shell command -v chromium chromium-browser google-chrome)),chromium),chromium,the report of evenkeel-chaos is tested in it)
need-runtime:
	$(call packages,nft containerd ctr runc,nftables containerd runc,the CNI plugin is tested with them)
need-kernel: build
	@$(SUDO) bin/evenkeel doctor >/dev/null || { $(SUDO) bin/evenkeel doctor; exit 1; }
