# Cytomill. One Makefile, nothing recursive into folders; everything built lies under build/.
#   make                  the programs                    make demo        PBMC 3k from counts to report, 5 minutes
#   make check            all tests                       make demo-slurm  the same under Slurm, with lost nodes
#   make bench            speed, as one table             make validate    against PyTorch, scanpy (fetches them)
#   make drill            a training that loses ranks 100 times (10 minutes) ends with the same bytes
#   make install prefix=  programs, jobs, manual pages    make deps        install missing Debian packages
#   make info             what was found                  make docs        configs/README.md from the key table
#   make lint layers format                               make clean       make distclean
# CONFIG=release|debug|sanitize|double chooses the build, V=1 shows commands, MPICC, CFLAGS, LDFLAGS as usual.
CONFIG ?= release
prefix ?= /usr/local
DESTDIR ?=
BUILD := build
B := $(BUILD)/$(CONFIG)
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
ifndef V
Q := @
endif

# ---- detection: .ci/detect writes build/config.mk, prints what it found, names missing packages. Goals that set
# the machine up themselves first install what is missing and then call make again. ----
SETS_UP := check demo demo-slurm bench drill validate
UNDETECTED := $(SETS_UP) help deps layers format lint clean distclean info
ifneq ($(filter-out $(UNDETECTED),$(or $(MAKECMDGOALS),all)),)
include $(BUILD)/config.mk
endif
$(BUILD)/config.mk: .ci/detect
	@mkdir -p $(BUILD) && .ci/detect $@

REVISION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

# ---- flags ----
FLAGS_release  := -O3 -g -DNDEBUG
FLAGS_debug    := -O0 -g3
FLAGS_sanitize := -O1 -g1 -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
FLAGS_double   := -O1 -g -DCYTOMILL_DOUBLE
WARN := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wno-unused-parameter
CFLAGS_ALL := -std=gnu11 -D_GNU_SOURCE $(FLAGS_$(CONFIG)) $(WARN) -fno-math-errno -fopenmp -Isrc -I. \
              -MMD -MP $(DEP_CFLAGS) $(CFLAGS)
LIBS := -Wl,--as-needed $(LDFLAGS) $(DEP_LIBS) -fopenmp -lpthread -lm

# ---- sources ----
# Kernels are compiled once per instruction set and chosen at run time (src/kernel/isa.h), apart from
# their plain versions (*_ref.c) and the files named here.
KERNEL_ONCE := $(wildcard src/kernel/*_ref.c src/kernel/isa.c src/kernel/row_groups.c src/kernel/expert_sort.c src/kernel/expert_count.c src/kernel/product*.c src/kernel/multiply*.c src/kernel/tiled.c)
KERNEL_ISA  := $(if $(filter double,$(CONFIG)),,$(filter-out $(KERNEL_ONCE),$(wildcard src/kernel/*.c)))
# -fno-trapping-math: nobody reads floating-point exception flags, and with them no branch becomes a blend.
ISA_generic := -fno-trapping-math -DISA=generic
ISA_avx2    := -fno-trapping-math -DISA=avx2 -march=x86-64-v3 -mprefer-vector-width=256
ISA_avx512  := -fno-trapping-math -DISA=avx512 -march=x86-64-v4 -mprefer-vector-width=512
ISAS        := generic $(if $(filter x86_64,$(shell uname -m)),avx2 avx512)

# A file of jobs/ is a program, apart from what they share: job.c, version.c, and names with an underscore.
JOB_PARTS := jobs/job.c jobs/version.c $(wildcard jobs/*_*.c)
# The double build is for gradients: the science alone, no programs.
LIB_SRC := $(filter-out src/kernel/%,$(wildcard src/*/*.c)) $(KERNEL_ONCE) \
    $(if $(filter-out double,$(CONFIG)),$(wildcard mpi/*.c) $(wildcard io/*.c) $(JOB_PARTS))
PROGRAMS := $(patsubst jobs/%.c,%,$(filter-out $(JOB_PARTS),$(wildcard jobs/*.c)))
BINS := $(patsubst %,$(B)/bin/cytomill-%,$(filter-out cytomill,$(PROGRAMS))) $(if $(filter cytomill,$(PROGRAMS)),$(B)/bin/cytomill)
ifeq ($(CONFIG),double)
BINS :=
endif
# Tests say in their plan which builds they are for; without a word: all but double. debug builds what release does.
TEST_SRC := $(wildcard tests/test_*.c)
TEST_CONFIG := $(CONFIG:debug=release)
TEST_SRC_ANY = $(if $(filter double,$(CONFIG)),,$(shell grep -LE 'plan:.*configs=' $(TEST_SRC)))
TESTS = $(patsubst tests/%.c,$(B)/tests/%,$(TEST_SRC_ANY) $(shell grep -lE 'plan:.*configs=[a-z,]*$(TEST_CONFIG)' $(TEST_SRC)))
BENCHES := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/bench_*.c))
TOOLS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/tool_*.c))

LIB_OBJ := $(patsubst %.c,$(B)/obj/%.o,$(LIB_SRC)) $(foreach i,$(ISAS),$(patsubst %.c,$(B)/obj/%.$(i).o,$(KERNEL_ISA)))
LIB := $(B)/libcytomill.a
LINK_sanitize := tests/keep_loaded.c

# ---- what one asks for ----
.PHONY: all tests units check demo demo-slurm bench drill validate layers lint format info deps docs install help clean distclean FORCE
all: $(BINS)

$(B)/obj/jobs/version.o: CFLAGS_ALL += -DCYTOMILL_REVISION='"$(REVISION)"'
$(B)/obj/jobs/version.o: $(B)/revision
$(B)/revision: FORCE
	@mkdir -p $(@D); echo '$(REVISION)' | cmp -s - $@ || echo '$(REVISION)' > $@
$(B)/obj/%.o: %.c $(BUILD)/config.mk
	@mkdir -p $(@D)
	$(Q)[ -n '$(V)' ] || echo '  CC $(CONFIG) $<'
	$(Q)$(MPICC) $(CFLAGS_ALL) -c $< -o $@
define ISA_RULE
$(B)/obj/src/kernel/%.$(1).o: src/kernel/%.c $(BUILD)/config.mk
	@mkdir -p $$(@D)
	$$(Q)[ -n '$(V)' ] || echo '  CC $(CONFIG) $$< ($(1))'
	$$(Q)$$(MPICC) $$(CFLAGS_ALL) $$(ISA_$(1)) -c $$< -o $$@
endef
$(foreach i,$(ISAS),$(eval $(call ISA_RULE,$(i))))

$(LIB): $(LIB_OBJ)
	@rm -f $@
	$(Q)ar rcs $@ $(LIB_OBJ)
$(B)/bin/cytomill-%: $(B)/obj/jobs/%.o $(LIB)
	@mkdir -p $(@D)
	$(Q)$(MPICC) $(CFLAGS_ALL) $< $(LINK_$(CONFIG)) $(LIB) $(LIBS) -o $@
$(B)/bin/cytomill: $(B)/obj/jobs/cytomill.o $(LIB)
	@mkdir -p $(@D)
	$(Q)$(MPICC) $(CFLAGS_ALL) $< $(LINK_$(CONFIG)) $(LIB) $(LIBS) -o $@
$(B)/tests/%: $(B)/obj/tests/%.o $(LIB)
	@mkdir -p $(@D)
	$(Q)$(MPICC) $(CFLAGS_ALL) $< $(LINK_$(CONFIG)) $(LIB) -lcmocka $(LIBS) -o $@

tests: all $(TESTS) $(TOOLS)
units: $(TESTS)

# Every test in the release build, gradients and the twin in double, the unit tests under sanitizers.
check: deps
	@.ci/detect --check
	@.ci/detect --print
	@$(MAKE) -j2 --no-print-directory tests
	@$(MAKE) -j2 --no-print-directory CONFIG=double units
	@$(MAKE) -j2 --no-print-directory CONFIG=sanitize units
	@CONFIGS="release double sanitize" tests/run

demo: deps
	@$(MAKE) -j2 --no-print-directory all
	@tests/demo $(DEMO_ARGS)

demo-slurm: deps
	@$(MAKE) -j2 --no-print-directory all
	@tests/slurm/chain --show
	@tests/slurm/mesh --show

drill: deps
	@$(MAKE) -j2 --no-print-directory all
	@tests/drill $(DRILL_ARGS)

bench: deps
	@tests/bench
.PHONY: bench-programs
bench-programs: all $(BENCHES) $(TOOLS)

validate: deps
	@$(MAKE) -j2 --no-print-directory tests
	@validation/run

deps:
	@.ci/deps
info:
	@.ci/detect --print
layers:
	@.ci/layers
lint:
	@.ci/lint
format:
	clang-format -i $$(git ls-files '*.c' '*.h')

docs: configs/README.md
configs/README.md: src/base/config_keys.h $(B)/tests/tool_reference
	$(Q)$(B)/tests/tool_reference > $@

# Batch files and configurations find the programs beside them, see jobs/batch.sh and jobs/data_path.h.
SHARE = $(DESTDIR)$(prefix)/share/cytomill
install: all
	install -d $(DESTDIR)$(prefix)/bin $(DESTDIR)$(prefix)/share/man/man1 $(SHARE)/jobs
	install $(BINS) $(DESTDIR)$(prefix)/bin
	install -m 644 jobs/*.sbatch jobs/batch.sh $(SHARE)/jobs
	find configs -type f -exec install -D -m 644 {} $(SHARE)/{} \;
	install -m 644 README.md INSTALL LICENSE CITATION.cff $(SHARE)
	.ci/man $(DESTDIR)$(prefix)/share/man/man1 $(BINS)

clean:
	rm -rf $(B)
distclean:
	rm -rf $(BUILD)
help:
	@sed -n '2,/^CONFIG/s/^# *//p' Makefile

-include $(shell find $(B) -name '*.d' 2>/dev/null)
