# SPDX-License-Identifier: Apache-2.0
# terse: `make help` lists the targets. One non-recursive Makefile; objects in build/<variant>/.

VERSION := 0.1.0
PREFIX ?= /usr/local
DESTDIR ?=
VARIANT ?= release
B := build/$(VARIANT)

# Headers missing on a bare machine: install what is needed first (goals that build). SETUP=no: who builds packages has
# installed what a build wants, and neither a network nor the tests' libraries.
ifneq ($(SETUP),no)
ifneq ($(filter-out help clean deb deb-check setup format-check uninstall,$(or $(MAKECMDGOALS),all)),)
ifeq ($(shell sh packaging/setup.sh --have >/dev/null 2>&1 || echo missing),missing)
$(info terse: some Debian packages are missing, installing them (packaging/setup.sh))
$(if $(shell sh packaging/setup.sh >&2 || echo failed),$(error packaging/setup.sh failed))
endif
endif
endif

CC ?= gcc
# Debian's own, for which setup.sh installs the modules, not one that stands before it in the PATH.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
ARCH := $(shell $(CC) -dumpmachine | cut -d- -f1)
WARN := -Wall -Wextra -Wshadow -Wconversion -Wvla -Wstrict-prototypes -Wmissing-prototypes $(WERROR)
# Tables for unwinding are the debugger's (-g has them), what nothing calls is left out, and where binutils 2.40 can (Debian
# 12: not for ARM), pointers in tables are relocated by a bit each instead of 24 bytes.
OPT_release := -O2 -g -fno-asynchronous-unwind-tables -ffunction-sections
RELR_x86_64 := -Wl,-z,pack-relative-relocs
LINK_release := -Wl,--gc-sections $(RELR_$(ARCH))
OPT_asan := -O1 -g -fsanitize=address -fno-omit-frame-pointer
OPT_ubsan := -O1 -g -fsanitize=undefined -fno-sanitize-recover=all
OPT_tsan := -O1 -g -fsanitize=thread
OPT_fuzz := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
HARDEN_release := -D_FORTIFY_SOURCE=2 -fstack-protector-strong
# Any other variant is a release in a folder of its own, of another compiler say: make CC=clang VARIANT=clang.
FLAVOR := $(if $(OPT_$(VARIANT)),$(VARIANT),release)
OPT := $(OPT_$(FLAVOR)) $(HARDEN_$(FLAVOR))
CFLAGS_ALL = -std=c17 -D_GNU_SOURCE -DTERSE_VERSION='"$(VERSION)"' -I. -I$(B)/gen $(WARN) $(OPT) -fPIC -fvisibility=hidden \
	-ffp-contract=off -fno-math-errno -MMD -MP $(CFLAGS)
LDFLAGS_ALL = $(OPT) $(LINK_$(FLAVOR)) -Wl,-z,relro,-z,now -Wl,--as-needed $(LDFLAGS)

PKG := pkg-config
MSGPACK_PC := $(shell $(PKG) --exists msgpack-c && echo msgpack-c || echo msgpack)
LIBS_MSGPACK = $(shell $(PKG) --libs $(MSGPACK_PC))
LIBS_ZMQ = $(shell $(PKG) --libs libzmq)
LIBS_COMMON = $(LIBS_MSGPACK) -lxxhash -lsodium -lzip -lzstd -lm
LIBS_COMPRESS = $(shell $(PKG) --libs libprotobuf-c) -llapacke -lopenblas $(LIBS_COMMON)
LIBS_SECCOMP = $(shell $(PKG) --libs libseccomp)
LIBS_LOADER = $(LIBS_SECCOMP) $(LIBS_COMMON)
LIBS_SUPERVISOR = $(shell $(PKG) --libs libsystemd) -linih

# --- sources: a file belongs to the program whose folder it is in ---------------------------------------
find = $(sort $(shell find $(1) -name '*.c' 2>/dev/null))
X86 := $(filter x86_64,$(ARCH))
ARM := $(filter aarch64,$(ARCH))
COMMON := $(filter-out common/kernels/x86/% common/kernels/arm/%,$(call find,common)) \
	$(if $(X86),$(call find,common/kernels/x86)) $(if $(ARM),$(call find,common/kernels/arm))
LIBTERSE := $(filter-out client/cli/% client/examples/% client/view/% client/gateway/% client/report/%,$(call find,client)) \
	common/status.c common/bytes.c common/tensor.c common/pack.c common/ring.c common/curve.c $(wildcard common/wire*.c)
SCREEN := client/cli/top/screen.c
CLI := $(filter-out $(SCREEN),$(call find,client/cli) $(call find,client/report))
# What `terse compare` takes from the compressor's rooms: files without BLAS or protobuf behind them.
CLI_COMPRESS := compress/paired.c compress/runner.c compress/samples.c
# What a daemon tells, read: for the programs that show it.
VIEW := $(call find,client/view)
GATEWAY := $(call find,client/gateway)
COMPRESS := $(call find,compress)
# tap_calls.c stands before the C library and is linked only into programs that want that.
DAEMON_SHARED := $(filter-out daemon/tap_calls.c,$(wildcard daemon/*.c))
TAP := daemon/tap_calls.c
GATE := $(call find,daemon/gate)
SUPERVISOR := $(call find,daemon/supervisor)
FRONTEND := $(call find,daemon/frontend)
WORKER := $(call find,daemon/worker)
LOADER := $(call find,daemon/loader)

obj = $(patsubst %.c,$(B)/obj/%.o,$(wildcard $(1)))
PROGRAMS := $(addprefix $(B)/,terse terse-compress tersed terse-frontend terse-gate terse-worker terse-loader terse-gateway)
SONAME := libterse.so.1

.PHONY: all
all: $(PROGRAMS) $(B)/terse-npz.so $(B)/terse-screen.so $(B)/libterse.so $(B)/libterse.a $(B)/classify

# ISA flags follow the file's suffix; everything else is built for the architecture's baseline.
isa_flags = $(if $(filter %_avx2,$(1)),-mavx2 -mfma) \
	$(if $(filter %_avx2vnni,$(1)),-mavx2 -mfma -mavxvnni) $(if $(filter %_neondot,$(1)),-march=armv8.2-a+dotprod) \
	$(if $(filter %_avx512bf16,$(1)),-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512bf16 -mavx2 -mfma -mprefer-vector-width=512) \
	$(if $(filter %_avx512vbmi,$(1)),-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512vbmi -mavx2 -mfma -mprefer-vector-width=512) \
	$(if $(filter %_avx512vnni,$(1)),-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mprefer-vector-width=512)
# Fuzzers look at what reads bytes from outside; kernels have asan's and ubsan's own tests, and instrumented by clang they
# take half an hour to compile.
plain_kernel = $(if $(filter fuzz,$(FLAVOR)),$(if $(filter common/kernels/%,$(1)),-fno-sanitize=all))
# Without -fno-trapping-math gcc turns no choice between two floats into a select; values stay the same.
# Loops of kernels and operators are made vectors, but not unrolled, peeled and split as -O3 does: that is much code for
# little speed, as what is to be unrolled says so; but products of bytes are 1.5 % faster by it. What ends them asks the same
# in each turn of a loop: gcc 14 makes a copy of the loop for each answer, 14 KB that are no faster. Small is the scalar tier, a
# definition and no CPU's best, what runs when a model or a shape comes, a setting changes, a process ends, a call fails or an
# operator asks, and what leaves its loops to kernels.
EACH_BATCH := $(addprefix common/graph/,engine.c run.c steps.c threads.c) $(wildcard common/graph/split*.c)
SMALL := common/kernels/ref/% $(filter-out $(EACH_BATCH),$(wildcard common/graph/*.c)) common/model% common/npz% \
	common/curve.c common/sparse.c common/status.c \
	$(addprefix common/ops/,einsum.c op.c quantized.c resize_taps.c rnn_plan.c support.c window.c) \
	daemon/supervisor/% daemon/loader/% \
	$(filter-out $(addprefix daemon/gate/,forward.c remotes.c),$(wildcard daemon/gate/*.c)) \
	daemon/log.c daemon/protocol.c daemon/sandbox.c daemon/pages.c daemon/worker/live.c daemon/worker/models.c \
	$(addprefix daemon/frontend/,admin.c attach.c control.c main.c reload.c)
GCC := $(shell $(CC) --version | grep -q 'Free Software' && echo yes)
VECTORS := $(if $(GCC),-fvect-cost-model=dynamic)
ENDS := $(if $(GCC),-fno-unswitch-loops)
kernel_opt = $(if $(filter release,$(FLAVOR)),$(if $(filter compress/train/% common/kernels/x86/products_u8_% common/kernels/x86/dot_finish_%,$(1)),-O3) \
	$(if $(filter common/kernels/x86/dot_finish_%,$(1)),$(ENDS)) \
	$(if $(filter $(SMALL),$(1)),-Os) \
	$(if $(filter common/ops/% common/kernels/%,$(filter-out common/kernels/ref/%,$(1))),$(VECTORS))) $(if $(filter common/kernels/% common/ops/% compress/train/%,$(1)),-fno-trapping-math)

$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	@$(CC) $(CFLAGS_ALL) $(call kernel_opt,$<) $(call plain_kernel,$<) $(call isa_flags,$*) -c $< -o $@

PROTO := compress/onnx/onnx.proto
# Both by one call: called once for each under -j, the second wrote the header anew while it was read.
$(B)/gen/onnx.pb-c.c $(B)/gen/onnx.pb-c.h &: $(PROTO)
	@mkdir -p $(B)/gen
	@protoc-c --proto_path=compress/onnx --c_out=$(B)/gen $<
$(B)/obj/gen/%.o: $(B)/gen/%.c
	@mkdir -p $(@D)
	@$(CC) -std=c17 -O2 -fPIC -I$(B)/gen $(OPT) $(CFLAGS) -c $< -o $@
PROTO_OBJ := $(if $(wildcard $(PROTO)),$(B)/obj/gen/onnx.pb-c.o)
$(call obj,$(COMPRESS)): | $(if $(wildcard $(PROTO)),$(B)/gen/onnx.pb-c.h)

$(B)/libcommon.a: $(call obj,$(COMMON))
	@rm -f $@
	@ar rcs $@ $^
$(B)/libcompress.a: $(filter-out %/main.o,$(call obj,$(COMPRESS))) $(PROTO_OBJ)
	@rm -f $@
	@ar rcs $@ $^
$(B)/libdaemon.a: $(call obj,$(DAEMON_SHARED)) $(filter-out %/main.o,$(call obj,$(SUPERVISOR) $(FRONTEND) $(GATE) $(WORKER) $(LOADER)))
	@rm -f $@
	@ar rcs $@ $^
$(B)/libview.a: $(call obj,$(VIEW))
	@rm -f $@
	@ar rcs $@ $^
$(B)/libcli.a: $(filter-out %/main.o,$(call obj,$(CLI) $(CLI_COMPRESS)))
	@rm -f $@
	@ar rcs $@ $^
$(B)/libterse.a: $(call obj,$(LIBTERSE))
	@rm -f $@
	@ar rcs $@ $^
$(B)/$(SONAME): $(call obj,$(LIBTERSE)) client/libterse.map
	@echo "  LD    $@"
	@$(CC) -shared -Wl,-soname,$(SONAME) -Wl,--version-script=client/libterse.map -o $@ $(call obj,$(LIBTERSE)) \
		$(LDFLAGS_ALL) $(LIBS_ZMQ) $(LIBS_MSGPACK)
$(B)/libterse.so: $(B)/$(SONAME)
	@ln -sf $(SONAME) $@

# Without libzmq and libzstd, which client/cli/lazy.c loads under their own names, and libzip, which terse-npz.so has.
soname = $(shell objdump -p $$($(CC) -print-file-name=$(1).so) | awk '/SONAME/ {print $$2}')
$(B)/obj/client/cli/lazy.o: CFLAGS_ALL += -DTERSE_ZMQ_SONAME='"$(call soname,libzmq)"' \
	-DTERSE_ZSTD_SONAME='"$(call soname,libzstd)"'
$(B)/terse: $(call obj,$(CLI) $(CLI_COMPRESS)) $(B)/libview.a $(B)/libterse.a $(B)/libcommon.a
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) $(filter-out -lzip -lzstd,$(LIBS_COMMON)) -ldl
$(B)/terse-npz.so: $(call obj,common/npz_archive.c common/status.c common/bytes.c)
	@echo "  LD    $@"
	@$(CC) -shared -o $@ $^ $(LDFLAGS_ALL) -lzip
# What `terse top` draws with, loaded by it alone.
$(B)/terse-screen.so: $(call obj,$(SCREEN))
	@echo "  LD    $@"
	@$(CC) -shared -o $@ $^ $(LDFLAGS_ALL) $(shell $(PKG) --libs ncursesw)
$(B)/terse-compress: $(B)/obj/compress/main.o $(B)/libcompress.a $(B)/libcommon.a
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) $(LIBS_COMPRESS)
$(B)/tersed: $(B)/obj/daemon/supervisor/main.o $(B)/libdaemon.a $(B)/libcommon.a
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) $(LIBS_SUPERVISOR)
$(B)/terse-frontend $(B)/terse-gate: $(B)/terse-%: $(B)/obj/daemon/%/main.o $(call obj,$(TAP)) $(B)/libdaemon.a $(B)/libcommon.a
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) $(LIBS_ZMQ) $(LIBS_SECCOMP) $(LIBS_COMMON)
$(B)/terse-worker: $(B)/obj/daemon/worker/main.o $(B)/libdaemon.a $(B)/libcommon.a
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) $(LIBS_SECCOMP) $(LIBS_COMMON)
$(B)/terse-loader: $(B)/obj/daemon/loader/main.o $(B)/libdaemon.a $(B)/libcommon.a
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) $(LIBS_LOADER)
# Of the command line it has the tables of options, of the daemon the sandbox and the log.
LIBS_GATEWAY = $(shell $(PKG) --libs libmicrohttpd zlib) $(LIBS_ZMQ) $(LIBS_SECCOMP) $(LIBS_SUPERVISOR) $(LIBS_COMMON)
$(B)/obj/client/gateway/page.o: client/gateway/page/index.html
$(B)/libgateway.a: $(filter-out %/main.o,$(call obj,$(GATEWAY)))
	@rm -f $@
	@ar rcs $@ $^
$(B)/terse-gateway: $(B)/obj/client/gateway/main.o $(call obj,client/cli/options.c daemon/sandbox.c daemon/log.c) $(B)/libgateway.a \
		$(B)/libview.a $(B)/libterse.a $(B)/libcommon.a
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) $(LIBS_GATEWAY)
$(B)/classify: client/examples/classify.c $(B)/libterse.so
	@$(CC) -std=c17 -Wall -Wextra $(OPT) -Iclient -o $@ $< -L$(B) -lterse -Wl,-rpath,'$$ORIGIN'

# --- tests: tests/unit/test_*.c and tests/kernels/test_*.c are cmocka programs; tests/fuzz/fuzz_*.c replay ----
UNIT := $(patsubst tests/unit/%.c,$(B)/tests/%,$(wildcard tests/unit/test_*.c)) \
	$(patsubst tests/kernels/%.c,$(B)/tests/%,$(wildcard tests/kernels/test_*.c))
FUZZ := $(patsubst tests/fuzz/%.c,$(B)/tests/%,$(wildcard tests/fuzz/fuzz_*.c))
TEST_LIBS = $(B)/libdaemon.a $(B)/libcompress.a $(B)/libview.a $(B)/libterse.a $(B)/libcommon.a
# The client and the daemon each have rooms of the same name (reply, request): never both in one program.
$(addprefix $(B)/tests/,test_client test_client_burst test_client_ring test_client_throttle): $(B)/tests/%: $(B)/obj/tests/unit/%.o $(B)/libterse.a $(B)/libcommon.a
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) -lcmocka $(LIBS_ZMQ) $(LIBS_COMMON)
# What `terse` alone has.
$(addprefix $(B)/tests/,test_load test_tune test_charts): $(B)/tests/%: $(B)/obj/tests/unit/%.o $(B)/libcli.a $(B)/libview.a $(B)/libterse.a $(B)/libcommon.a
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) -lcmocka $(filter-out -lzip -lzstd,$(LIBS_COMMON)) -ldl
$(B)/tests/test_gateway: $(B)/obj/tests/unit/test_gateway.o $(B)/libgateway.a $(B)/libview.a $(B)/libterse.a $(B)/libcommon.a
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) -lcmocka $(LIBS_GATEWAY)
$(B)/tests/%: $(B)/obj/tests/unit/%.o $(TEST_LIBS)
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) -lcmocka $(LIBS_ZMQ) $(LIBS_SUPERVISOR) $(LIBS_LOADER) $(LIBS_COMPRESS)
$(B)/tests/%: $(B)/obj/tests/kernels/%.o $(TEST_LIBS)
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) -lcmocka $(LIBS_COMMON)
# The front end without libzmq, which the fuzzer plays (tests/fuzz/play_zmq.h), and under its clock.
$(B)/tests/fuzz_frontend: $(B)/obj/tests/fuzz/fuzz_frontend.o $(call obj,tests/fuzz/play_*.c) $(B)/libdaemon.a $(B)/libcommon.a
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) $(LINK_FUZZER) -Wl,--wrap=terse_now_ns,--wrap=terse_log,--wrap=terse_log_with,--wrap=epoll_pwait2,--wrap=epoll_wait \
		$(LIBS_SECCOMP) $(LIBS_COMMON)
$(B)/tests/fuzz_gateway: $(B)/obj/tests/fuzz/fuzz_gateway.o $(B)/libgateway.a $(B)/libview.a $(B)/libterse.a $(B)/libcommon.a
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) $(LINK_FUZZER) $(LIBS_GATEWAY)
$(B)/tests/%: $(B)/obj/tests/fuzz/%.o $(TEST_LIBS)
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) $(LINK_FUZZER) $(LIBS_ZMQ) $(LIBS_SUPERVISOR) $(LIBS_LOADER) $(LIBS_COMPRESS)
# Preloaded into the daemon by stories; plain, whatever the variant: a sanitizer's runtime is loaded once already.
$(B)/faults.so: tests/system/faults.c daemon/protocol.h
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) -std=c17 -D_GNU_SOURCE -I. $(WARN) -O2 -fPIC -shared -fvisibility=hidden -o $@ $< -ldl
.SECONDARY:
# With libFuzzer in the place of replay.h's main.
LINK_FUZZER := $(if $(filter fuzz,$(VARIANT)),-fsanitize=fuzzer)
$(B)/obj/tests/fuzz/%.o: CFLAGS_ALL += $(if $(filter fuzz,$(VARIANT)),-DTERSE_LIBFUZZER)

.PHONY: tests
tests: all $(UNIT) $(FUZZ) $(B)/faults.so

SYSTEM := $(sort $(wildcard tests/system/*.py))
SYSTEM := $(filter-out $(addprefix tests/system/,harness.py gateways.py webdriver.py onnx_writer.py zmtp.py hostile.py packages_load.py terminal.py),$(SYSTEM)) $(sort $(wildcard tests/system/*.sh))

# Two of these run at a time, as unit tests do: stories of terse compress alone, where nothing waits for anybody, and two that
# install packages into a root of their own.
COMPRESS_STORIES := weights_only_keeps_accuracy int8_keeps_accuracy bf16_keeps_accuracy pruning_keeps_what_it_promises \
	what_is_lost_is_won_back compress_keeps_what_it_promises compressed_networks_leave_as_onnx onnx_conformance \
	quantized_nodes_are_exact rows_are_told_apart a_student_learns models_are_compared_and_explained samples_are_looked_at
TOGETHER := tests/system/packages_on_a_booted_system.sh $(patsubst %,tests/system/%.py,container_is_small_and_serves \
	$(COMPRESS_STORIES))
# So do these behind them: they wait for what they have broken, and none asks how long an answer takes.
WAITING := $(patsubst %,tests/system/%.py,the_gate_may_fail any_call_may_fail memory_is_bounded anything_may_die_or_stop \
	several_daemons_stand_in_for_each_other shared_memory_withstands_its_clients gateway_bears_overload \
	one_of_two_hosts_is_cut_off dashboards_show_what_exists)
TESTS = --jobs 2 $(TOGETHER) $(UNIT) $(FUZZ) tests/structure.py $(WAITING) \
	--alone $(filter-out $(TOGETHER) $(WAITING),$(SYSTEM))

# What is built by a recipe uses every core, unless make was told how many (more than one: -j1 looks like none).
PARALLEL = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))
# make check ONLY=word runs the tests whose path has that word.
ONLY ?=
.PHONY: check check-long check-layers format-check asan ubsan tsan fuzz
check:
	@$(MAKE) --no-print-directory WERROR=-Werror $(PARALLEL) tests
	@TERSE_BUILD=$(B) $(PYTHON) tests/run.py --only '$(ONLY)' --log $(B)/logs $(TESTS)
check-long:
	@TERSE_LONG=1 $(MAKE) --no-print-directory check
check-layers: all
	@$(PYTHON) tests/run.py tests/structure.py
format-check:
	@clang-format --dry-run -Werror $(shell git ls-files '*.c' '*.h')

# The unit tests, fuzz corpora and kernels under a sanitizer, in a build folder of its own.
asan ubsan:
	@$(MAKE) --no-print-directory VARIANT=$@ WERROR=-Werror $(PARALLEL) sanitized
# What has threads or speaks to them: the front end, the gate, gateways, libterse, kernels that share a batch, and the daemon
# as a whole.
TSAN_UNIT := test_client test_clients test_queue test_slots test_protocol test_supervisor test_threads test_threads_kernels \
	test_tap test_hold test_gateway
TSAN_SYSTEM := deadlines_cancels_and_limits a_client_harms_only_itself workers_die_mid_batch tcp_comes_through_the_gate \
	no_request_is_lost tensors_stay_in_shared_memory shared_memory_withstands_its_clients \
	hostile_clients_harm_only_themselves gateway_speaks_open_inference gateway_bears_overload models_come_and_go \
	users_have_limits_of_their_own gateway_reads_halves_and_long_bodies gateway_shares_memory
tsan:
	@$(MAKE) --no-print-directory VARIANT=tsan WERROR=-Werror $(PARALLEL) threads-sanitized
.PHONY: threads-sanitized
threads-sanitized: all $(addprefix $(B)/tests/,$(TSAN_UNIT)) $(B)/faults.so
	@TSAN_OPTIONS="suppressions=$(CURDIR)/tests/tsan.supp halt_on_error=0 exitcode=66" TERSE_BUILD=$(B) $(PYTHON) tests/run.py \
		--only '$(ONLY)' --log $(B)/logs $(addprefix $(B)/tests/,$(TSAN_UNIT)) $(patsubst %,tests/system/%.py,$(TSAN_SYSTEM))
.PHONY: sanitized
sanitized: tests
	@ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 TERSE_BUILD=$(B) \
		$(PYTHON) tests/run.py --seconds 1200 --only '$(ONLY)' --log $(B)/logs $(TESTS)

# Each target of tests/fuzz for SECONDS with libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer. What they find
# stays in build/fuzz/findings; `make fuzz-corpus` puts what they learned, minimized, into tests/fuzz/corpus.
SECONDS := 60
FUZZ_CC ?= clang
fuzz fuzz-corpus:
	@FUZZ_CC=$(FUZZ_CC) sh tests/fuzz/fuzz.sh --have
	@$(MAKE) --no-print-directory VARIANT=fuzz CC=$(FUZZ_CC) $(PARALLEL) fuzzers
	@sh tests/fuzz/fuzz.sh $@ $(SECONDS) '$(ONLY)'
.PHONY: fuzzers fuzz-corpus soak
fuzzers: $(FUZZ)
# A daemon under mixed load: its memory and its descriptors stay where they are.
MINUTES := 10
soak: all
	@TERSE_BUILD=$(B) $(PYTHON) tests/soak.py --minutes $(MINUTES)

.PHONY: quickstart bench
quickstart:
	@$(MAKE) --no-print-directory $(PARALLEL) all
	@PYTHON=$(PYTHON) sh tests/quickstart.sh $(B)
$(B)/echo: $(B)/obj/tests/bench/echo.o $(B)/libcommon.a
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) $(LIBS_ZMQ) $(LIBS_MSGPACK)
$(B)/beside: $(B)/obj/tests/bench/beside.o $(B)/obj/tests/bench/peak.o $(B)/libcommon.a
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL) -lopenblas $(LIBS_COMMON)
$(B)/sink: $(B)/obj/tests/bench/sink.o
	@echo "  LD    $@"
	@$(CC) -o $@ $^ $(LDFLAGS_ALL)
bench: all $(B)/echo $(B)/beside $(B)/sink
	@python3 tests/bench/bench.py $(BENCH)

# --- manuals and completions, made by asking the programs: packaging/man/README.md ------------------------------
MAN := build/man
COMPLETION := build/completion
.PHONY: man
man: $(MAN)/.made
$(MAN)/.made: $(B)/terse $(B)/terse-compress $(B)/tersed $(B)/terse-gateway client/terse.h $(wildcard packaging/man/* packaging/completion/*)
	@echo "  MAN   $(MAN)"
	@rm -rf $(MAN) $(COMPLETION)
	@mkdir -p $(MAN) $(COMPLETION)
	@PYTHONDONTWRITEBYTECODE=1 $(PYTHON) packaging/man/make_man.py $(B) $(MAN)
	@PYTHONDONTWRITEBYTECODE=1 $(PYTHON) packaging/completion/make_completion.py $(B) $(COMPLETION)
	@touch $@

# --- install: everything under $(DESTDIR)$(PREFIX); `uninstall` removes exactly that -----------------------
HELPERS = terse-compress terse-npz.so terse-screen.so terse-frontend terse-gate terse-worker terse-loader
# Where a distribution wants other places: LIBDIR=lib/x86_64-linux-gnu, DOCDIR, STRIP= to keep symbols for its own tools.
LIBDIR ?= lib
DOCDIR ?= share/doc/terse
STRIP ?= -s
UNITS = $(notdir $(wildcard packaging/systemd/*.service packaging/systemd/*.socket))
INSTALLED = bin/terse bin/tersed bin/terse-gateway $(addprefix lib/terse/,$(HELPERS)) \
	$(LIBDIR)/$(SONAME) $(LIBDIR)/libterse.so $(LIBDIR)/libterse.a $(LIBDIR)/pkgconfig/libterse.pc include/terse.h \
	$(addprefix lib/systemd/system/,$(UNITS)) lib/sysusers.d/terse.conf $(DOCDIR)/tersed.conf $(DOCDIR)/classify.c \
	share/bash-completion/completions/terse share/bash-completion/completions/tersed \
	share/zsh/vendor-completions/_terse share/zsh/vendor-completions/_tersed \
	share/bash-completion/completions/terse-gateway share/zsh/vendor-completions/_terse-gateway
INTO = $(DESTDIR)$(PREFIX)
fill = sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@DOCDIR@|$(PREFIX)/$(DOCDIR)|g' \
	-e 's|@VERSION@|$(VERSION)|g' -e 's|@LIBS_PRIVATE@|$(LIBS_ZMQ) $(LIBS_MSGPACK)|g'

.PHONY: install uninstall
install: all man
	install -d $(sort $(addprefix $(INTO)/,$(dir $(INSTALLED)))) $(addprefix $(INTO)/share/man/man,1 3 5 7 8)
	install $(STRIP) -m 755 $(B)/terse $(B)/tersed $(B)/terse-gateway $(INTO)/bin/
	install $(STRIP) -m 755 $(addprefix $(B)/,$(HELPERS)) $(INTO)/lib/terse/
	install $(STRIP) -m 644 $(B)/$(SONAME) $(INTO)/$(LIBDIR)/
	ln -sf $(SONAME) $(INTO)/$(LIBDIR)/libterse.so
	install -m 644 $(B)/libterse.a $(INTO)/$(LIBDIR)/
	install -m 644 client/terse.h $(INTO)/include/
	install -m 644 packaging/terse/tersed.conf client/examples/classify.c $(INTO)/$(DOCDIR)/
	install -m 644 packaging/systemd/terse.sysusers $(INTO)/lib/sysusers.d/terse.conf
	for page in $(MAN)/*.[1-8]; do install -m 644 $$page $(INTO)/share/man/man$${page##*.}/; done
	install -m 644 $(COMPLETION)/bash/* $(INTO)/share/bash-completion/completions/
	install -m 644 $(COMPLETION)/zsh/_* $(INTO)/share/zsh/vendor-completions/
	$(fill) packaging/terse/libterse.pc >$(INTO)/$(LIBDIR)/pkgconfig/libterse.pc
	for unit in $(UNITS); do $(fill) "packaging/systemd/$$unit" >"$(INTO)/lib/systemd/system/$$unit"; done
	chmod 644 $(INTO)/$(LIBDIR)/pkgconfig/libterse.pc $(addprefix $(INTO)/lib/systemd/system/,$(UNITS))
	@[ -n "$(DESTDIR)" ] || ldconfig 2>/dev/null || true
uninstall:
	rm -f $(addprefix $(INTO)/,$(INSTALLED))
	rm -f $(addprefix $(INTO)/share/man/man,1/terse.1 1/terse-*.1 3/libterse.3 5/tersed.conf.5 5/terse-model.5 7/terse-protocol.7 8/tersed.8 8/terse-gateway.8)
	-@rmdir $(INTO)/lib/terse $(INTO)/$(DOCDIR) 2>/dev/null || true
	@[ -n "$(DESTDIR)" ] || ldconfig 2>/dev/null || true

# Packages of this system, or SUITE=trixie, into build/deb/SUITE.
.PHONY: deb
deb:
	@packaging/deb.sh $(SUITE)

# What Debian asks of packages: built twice with the same bytes, lintian, piuparts, autopkgtest (root, network).
.PHONY: deb-check
deb-check:
	@packaging/deb-check.sh $(SUITES)

# The packages on a booted systemd (root, mmdebstrap, systemd-container): SUITES="bookworm trixie".
SUITES ?= bookworm trixie
.PHONY: check-system
check-system: all
	@TERSE_SUITES="$(SUITES)" TERSE_BUILD=$(B) $(PYTHON) tests/run.py --seconds 3600 --log $(B)/logs \
		tests/system/packages_on_a_booted_system.sh tests/system/systemd_unit.sh

.PHONY: clean help
clean:
	rm -rf build

help:
	@echo "make               build into build/release"
	@echo "make quickstart    build, compress the sample, serve it, send requests, show the figures"
	@echo "make check         every test (ONLY=word: those whose path has the word)"
	@echo "make check-system  the Debian packages on a booted systemd, SUITES=\"bookworm trixie\" (root)"
	@echo "make check-long    the same with longer runs"
	@echo "make asan ubsan    the tests under AddressSanitizer, UndefinedBehaviorSanitizer"
	@echo "make tsan          front end, libterse, kernels' threads and stories under ThreadSanitizer"
	@echo "make fuzz          SECONDS=60 of libFuzzer for each target of tests/fuzz (needs clang)"
	@echo "make soak          MINUTES=10 of mixed load: memory and descriptors must not grow"
	@echo "make bench         speed beside onnxruntime, ncnn, MNN, OpenBLAS, ZeroMQ echo (installs peers with pip)"
	@echo "make man           manual pages and completions, in build/man and build/completion"
	@echo "make install       PREFIX=/usr/local DESTDIR="
	@echo "make deb           Debian packages into build/deb (SUITE=trixie: of another suite, in a root of its own)"
	@echo "make deb-check     packages built twice, lintian, piuparts and autopkgtest, SUITES=\"bookworm trixie\" (root)"
	@echo "make uninstall     what make install put there"
	@echo "make setup         only install the Debian packages that building and testing needs"
	@echo "make format-check check-layers clean"

.PHONY: setup
setup:
	@sh packaging/setup.sh

-include $(shell find $(B) -name '*.d' 2>/dev/null)
