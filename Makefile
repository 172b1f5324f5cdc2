# Cytomill. One Makefile, nothing recursive; everything built lies under build/.
#   make            programs, release build        make help    what else there is
#   make CONFIG=debug|sanitize|double|release      which build
CONFIG ?= release
prefix ?= /usr/local
DESTDIR ?=
BUILD := build
B := $(BUILD)/$(CONFIG)
MAKEFLAGS += --no-builtin-rules
.DELETE_ON_ERROR:
.SECONDARY:

# ---- detection: .ci/detect writes build/config.mk, prints what it found, names missing packages ----
NO_DETECT := help deps clean distclean
ifneq ($(filter-out $(NO_DETECT),$(or $(MAKECMDGOALS),all)),)
$(BUILD)/config.mk: .ci/detect
	@mkdir -p $(BUILD) && .ci/detect $@
ifeq ($(filter check demo demo-slurm bench validate,$(MAKECMDGOALS)),)
include $(BUILD)/config.mk
else
-include $(BUILD)/config.mk
endif
endif

REVISION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

# ---- flags ----
FLAGS_release  := -O3 -g -DNDEBUG
FLAGS_debug    := -O0 -g3
FLAGS_sanitize := -O1 -g3 -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
FLAGS_double   := -O1 -g -DCYTOMILL_DOUBLE
WARN := -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wno-unused-parameter
CFLAGS_ALL := -std=gnu11 -D_GNU_SOURCE $(FLAGS_$(CONFIG)) $(WARN) -fno-math-errno -fopenmp -Isrc -I. \
              -MMD -MP $(DEP_CFLAGS) $(CFLAGS)
LIBS := -Wl,--as-needed $(DEP_LIBS) -fopenmp -lpthread -lm

# ---- sources ----
# Kernels are compiled once per instruction set and chosen at run time (src/kernel/isa.h), apart from
# their plain versions (*_ref.c) and the files named here.
KERNEL_ONCE := $(wildcard src/kernel/*_ref.c src/kernel/isa.c src/kernel/row_groups.c src/kernel/product*.c src/kernel/multiply*.c)
KERNEL_ISA  := $(if $(filter double,$(CONFIG)),,$(filter-out $(KERNEL_ONCE),$(wildcard src/kernel/*.c)))
ISA_generic := -DISA=generic
ISA_avx2    := -DISA=avx2 -march=x86-64-v3 -mprefer-vector-width=256
ISA_avx512  := -DISA=avx512 -march=x86-64-v4 -mprefer-vector-width=512
ISAS        := generic $(if $(filter x86_64,$(shell uname -m)),avx2 avx512)

# A file of jobs/ is a program, apart from what they share: job.c, version.c, and names with an underscore.
JOB_PARTS := jobs/job.c jobs/version.c $(wildcard jobs/*_*.c)
LIB_SRC := $(filter-out src/kernel/%,$(wildcard src/*/*.c)) $(KERNEL_ONCE) $(wildcard mpi/*.c) $(wildcard io/*.c) $(JOB_PARTS)
PROGRAMS := $(patsubst jobs/%.c,%,$(filter-out $(JOB_PARTS),$(wildcard jobs/*.c)))
BINS := $(patsubst %,$(B)/bin/cytomill-%,$(filter-out cytomill,$(PROGRAMS))) $(if $(filter cytomill,$(PROGRAMS)),$(B)/bin/cytomill)
TESTS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/test_*.c))
BENCHES := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/bench_*.c))
TOOLS := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/tool_*.c))

LIB_OBJ := $(patsubst %.c,$(B)/obj/%.o,$(LIB_SRC)) $(foreach i,$(ISAS),$(patsubst %.c,$(B)/obj/%.$(i).o,$(KERNEL_ISA)))
LIB := $(B)/libcytomill.a

# ---- what one asks for ----
.PHONY: all demo demo-slurm check bench validate layers lint format info deps install help tests clean distclean docs
all: $(BINS)

$(B)/obj/jobs/version.o: CFLAGS_ALL += -DCYTOMILL_REVISION='"$(REVISION)"'
$(B)/obj/%.o: %.c $(BUILD)/config.mk
	@mkdir -p $(@D)
	$(MPICC) $(CFLAGS_ALL) -c $< -o $@
define ISA_RULE
$(B)/obj/src/kernel/%.$(1).o: src/kernel/%.c $(BUILD)/config.mk
	@mkdir -p $$(@D)
	$$(MPICC) $$(CFLAGS_ALL) $$(ISA_$(1)) -c $$< -o $$@
endef
$(foreach i,$(ISAS),$(eval $(call ISA_RULE,$(i))))

$(LIB): $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $(LIB_OBJ)
$(B)/bin/cytomill-%: $(B)/obj/jobs/%.o $(LIB)
	@mkdir -p $(@D)
	$(MPICC) $(CFLAGS_ALL) $< $(LIB) $(LIBS) -o $@
$(B)/bin/cytomill: $(B)/obj/jobs/cytomill.o $(LIB)
	@mkdir -p $(@D)
	$(MPICC) $(CFLAGS_ALL) $< $(LIB) $(LIBS) -o $@
$(B)/tests/%: $(B)/obj/tests/%.o $(LIB)
	@mkdir -p $(@D)
	$(MPICC) $(CFLAGS_ALL) $< $(LIB) -lcmocka $(LIBS) -o $@

tests: all $(TESTS) $(TOOLS)

check: deps
	@$(MAKE) --no-print-directory info
	@$(MAKE) -j2 --no-print-directory CONFIG=release tests
	@tests/run

demo: deps
	@$(MAKE) -j2 --no-print-directory all
	@tests/demo

bench: deps
	@$(MAKE) -j2 --no-print-directory all $(BENCHES) $(TOOLS)
	@tests/bench

deps:
	@.ci/deps
info: $(BUILD)/config.mk
	@.ci/detect --print
layers:
	@.ci/layers
docs: configs/README.md
configs/README.md: src/base/config_keys.h $(B)/tests/tool_reference
	$(B)/tests/tool_reference > $@
format:
	clang-format -i $$(git ls-files '*.c' '*.h')
clean:
	rm -rf $(B)
distclean:
	rm -rf $(BUILD)
help:
	@sed -n 's/^#   //p' Makefile; echo "targets: all demo demo-slurm check bench validate layers lint format info deps install docs clean"

-include $(shell find $(B) -name '*.d' 2>/dev/null)
