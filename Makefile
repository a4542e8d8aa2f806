# Myelin's build. `make help` lists the targets. All output goes to build/, all local state to .local/.
#
#   VARIANT=asan|tsan|crash|clang|lint   another build beside the plain one, in build/VARIANT/; words combine: asan-crash
#   WERROR=1                        warnings are errors
#   FUZZ_SECONDS=30                 how long `make fuzz` runs each target

VARIANT      ?=
WERROR       ?= $(if $(filter lint,$(words_of_variant)),1)
PREFIX       ?= /usr/local
FUZZ_SECONDS ?= 30
words_of_variant := $(subst -, ,$(VARIANT))
B := build$(VARIANT:%=/%)

ifeq ($(origin CC),default)
CC := $(if $(filter clang fuzz,$(words_of_variant)),clang,gcc)
endif
CFLAGS   ?= -O2 -g
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion $(if $(filter 1,$(WERROR)),-Werror)
DEFINES  := -D_GNU_SOURCE $(if $(filter crash,$(words_of_variant)),-DMYELIN_CRASH_POINTS)
ifneq ($(filter asan fuzz,$(words_of_variant)),)
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
endif
ifneq ($(filter tsan,$(words_of_variant)),)
SANITIZE := -fsanitize=thread -fno-omit-frame-pointer
endif
COVER    := $(if $(filter fuzz,$(words_of_variant)),-fsanitize=fuzzer-no-link)
SECTIONS := $(if $(filter lint,$(words_of_variant)),-ffunction-sections -fdata-sections) # for tests/pure.py
COMPILE   = $(CC) -std=c11 $(DEFINES) -I. $(PKG_CFLAGS) $(WARNINGS) $(CFLAGS) $(SANITIZE) $(COVER) $(SECTIONS)
LINK      = $(CC) $(CFLAGS) $(SANITIZE) $(LDFLAGS)
PACKAGES := rdkafka hiredis avro-c libcurl libconfig jansson libcrypto libmicrohttpd

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
# One goal is built with all processors; several goals (`make clean all`, `make up status`) one after another.
MAKEFLAGS += --no-builtin-rules $(if $(filter 0,$(MAKELEVEL)),-j$(shell nproc))
$(if $(word 2,$(MAKECMDGOALS)),$(eval .NOTPARALLEL:))

# Set-up installs what is missing, then this file records how to compile against it. Make brings it up to date before
# anything else, and again when the list of packages changes; goals that compile nothing do without.
ifneq ($(filter-out help clean format lint up down reset status,$(or $(MAKECMDGOALS),all)),)
include build/deps.mk
endif
build/deps.mk: ops/setup Makefile
	@ops/setup build run
	@mkdir -p $(@D)
	@echo "PKG_CFLAGS := $$(pkg-config --cflags $(PACKAGES) | sed 's/-I/-isystem /g')" >$@
	@echo "PKG_LIBS := $$(pkg-config --libs $(PACKAGES)) -ljq -lpthread -lm" >>$@
build/setup-%: ops/setup
	@ops/setup $(subst -, ,$*)
	@mkdir -p $(@D) && touch $@
build/venv/ready: ops/venv tests/requirements.txt | build/deps.mk
	@ops/venv
kafka: build/deps.mk
	@ops/kafka/broker fetch

lib_src    := $(foreach d,base wire contract core io call,$(wildcard worker/$d/*.c)) \
              $(filter-out worker/main.c,$(wildcard worker/*.c))
cli_src    := $(wildcard producer/*.c)
test_src   := $(wildcard tests/unit/*.c tests/scenario/*.c)
fuzz_src   := $(wildcard tests/fuzz/fuzz_*.c)
double_src := $(wildcard tests/doubles/*.c tests/doubles/*/*.c)
bench_src  := $(wildcard tests/bench/*.c)
sim_src    := $(wildcard tests/sim/*.c)
obj         = $(patsubst %.c,$(B)/obj/%.o,$(1))

# In tests/unit and tests/scenario each test_*.c is a program and the rest helps every program of its directory.
# A double is tests/doubles/NAME.c, tests/doubles/NAME/*.c or both; common*.c and common/*.c belong to all of them.
programs  := $(patsubst worker/main.c,$(B)/myelin-worker,$(wildcard worker/main.c)) $(if $(cli_src),$(B)/myelin)
test_main := $(foreach s,$(test_src),$(if $(filter test_%,$(notdir $s)),$s))
tests     := $(test_main:%.c=$(B)/%)
replays   := $(fuzz_src:%.c=$(B)/%)
common    := $(filter tests/doubles/common%,$(double_src))
doubles   := $(addprefix $(B)/tests/,$(sort $(foreach s,$(filter-out $(common),$(double_src)),\
             $(basename $(word 3,$(subst /, ,$s))))))
benches   := $(bench_src:%.c=$(B)/%)
sims      := $(addprefix $(B)/tests/sim/,sim threads)
double_of  = $(filter tests/doubles/$(1).c tests/doubles/$(1)/%,$(double_src))
helpers    = $(filter-out $(test_main),$(filter $(dir $(1))%,$(test_src)))
sources    = $(sort $(lib_src) $(wildcard worker/main.c) $(cli_src) $(test_src) $(fuzz_src) $(wildcard tests/fuzz/*.c) $(double_src) \
             $(bench_src) $(sim_src))

##@ Build
all: $(B)/libmyelin.a $(programs) ## both programs: build/myelin and build/myelin-worker
objects: $(call obj,$(sources))
tsan: $(B)/tests/sim/threads $(B)/tests/unit/test_ring $(B)/tests/unit/test_expr_watchdog
tests: $(tests) $(sims) $(if $(COVER),,$(replays))
doubles: $(doubles)
benches: $(benches)
replays: $(replays)

$(B)/libmyelin.a: $(call obj,$(lib_src)) $(patsubst %,$(B)/obj/gen/schemas.o,$(wildcard worker/wire/schemas.h))
	@echo "  AR    $@"
	@rm -f $@ && ar rcs $@ $^
$(B)/myelin-worker: $(B)/obj/worker/main.o
$(B)/myelin: $(call obj,$(cli_src))
# The simulation's ports stand before the library, which then does without its own. Either has its own `main`.
$(sims): $(B)/tests/sim/%: $(B)/obj/tests/sim/%.o $(call obj,$(filter-out $(sims:$(B)/%=%.c),$(sim_src)))
$(programs) $(tests) $(replays) $(doubles) $(benches) $(sims): $(B)/libmyelin.a
	@echo "  LD    $@"
	@mkdir -p $(@D)
	@$(LINK) -o $@ $(filter %.o,$^) $(B)/libmyelin.a $(PKG_LIBS) $(EXTRA_LIBS)

.SECONDEXPANSION:
$(tests): EXTRA_LIBS = -lcmocka
$(B)/tests/unit/test_keep: EXTRA_LIBS = -lcmocka -Wl,--wrap=record_decode,--wrap=hash_id # it counts them
$(tests): $(B)/%: $(B)/obj/%.o $$(call obj,$$(call helpers,$$*))
$(doubles): $(B)/tests/%: $$(call obj,$$(call double_of,$$*) $(common))
$(benches): $(B)/%: $(B)/obj/%.o
$(replays): EXTRA_LIBS = $(if $(COVER),-fsanitize=fuzzer)
$(replays): $(B)/%: $(B)/obj/%.o $(if $(COVER),,$(B)/obj/tests/fuzz/replay.o)

# Changes only with the flags, so that a change of the flags compiles everything again and nothing else does.
$(B)/flags: build/deps.mk FORCE
	@mkdir -p $(@D)
	@echo '$(COMPILE)' | cmp -s - $@ || echo '$(COMPILE)' >$@
$(B)/obj/%.o: %.c $(B)/flags | $(if $(filter clang,$(CC)),build/setup-lint)
	@echo "  CC    $<"
	@mkdir -p $(@D)
	@$(COMPILE) -MMD -MP -c -o $@ $<
$(call obj,$(test_src)): | build/setup-test
build/gen/schemas.c: ops/embed $(sort $(wildcard schemas/*.avsc))
	@mkdir -p $(@D)
	@ops/embed $(filter %.avsc,$^) >$@
$(B)/obj/gen/schemas.o: build/gen/schemas.c $(B)/flags
	@echo "  CC    $<"
	@mkdir -p $(@D)
	@$(COMPILE) -Wno-overlength-strings -MMD -MP -c -o $@ $<
-include $(patsubst %.o,%.d,$(call obj,$(sources)) $(B)/obj/gen/schemas.o)

install: all ## both programs and the sample configuration, under PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/myelin/contracts
	install -m 755 $(programs) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(wildcard config/*.cfg) $(DESTDIR)$(PREFIX)/share/myelin
	install -m 644 $(wildcard config/contracts/*.cfg) $(DESTDIR)$(PREFIX)/share/myelin/contracts
clean: ## remove build/
	rm -rf build

##@ See it work
demo: all doubles build/venv/ready kafka ## the whole story on a real Kafka and Redis, with kill -9
	@tests/demo/run

##@ Trust it
test: all doubles tests build/venv/ready kafka ## every test, with servers of its own
	@$(MAKE) --no-print-directory VARIANT=crash all doubles
	@$(MAKE) --no-print-directory VARIANT=asan all tests
	@$(MAKE) --no-print-directory VARIANT=tsan tsan
	@MYELIN_BUILD=$(B) tests/run
asan: build/venv/ready build/setup-test kafka ## the system tests with ASan and UBSan; NAME=... some of them; a leak is a failure too
	@$(MAKE) --no-print-directory VARIANT=asan all doubles
	@$(MAKE) --no-print-directory VARIANT=asan-crash all doubles
	@MYELIN_BUILD=build/asan MYELIN_BUILD_CRASH=build/asan-crash tests/run system $(if $(NAME),-k "$(NAME)")
check: doubles tests ## what needs no server: unit, scenario, fuzz corpus, simulation
	@MYELIN_BUILD=$(B) tests/run check
lint: ## both compilers, formatting, clang-tidy and the project's own rules
	@tests/lint
format: ## apply .clang-format
	@ops/setup lint && git ls-files '*.c' '*.h' | xargs clang-format -i
bench: all benches doubles build/venv/ready kafka build/setup-bench ## how fast, in ratios; PARTS="..." some of it; PEERS=1 beside Restate (minutes)
	@MYELIN_BUILD=$(B) PEERS=$(PEERS) tests/bench/run $(PARTS)
fuzz: build/setup-lint ## fuzz each decoder of outside bytes for FUZZ_SECONDS
	@$(MAKE) --no-print-directory VARIANT=fuzz replays
	@tests/fuzz/run $(FUZZ_SECONDS)

##@ Local servers
up: ## start a Kafka broker and a Redis on 127.0.0.1
	@ops/up
down: ## stop them
	@ops/down
status: ## what runs, where it listens, where its log is
	@ops/status || true
reset: ## stop them and delete their data
	@ops/reset
help: ## this list
	@awk -F ':.*## ' '/^##@/ { print "\n" substr($$0, 5) } /^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

.PHONY: all kafka objects tests tsan doubles benches replays bench install clean demo test asan check lint format fuzz up down status reset help FORCE
