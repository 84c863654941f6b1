# Asks kbuild for its units. This file stands in for the kernel's scripts/Makefile.build, includes it, and writes down what it has worked out, one record a folder. Nothing is made: the makes run with -n.
#
# klpx-mk: this file. klpx-out: where the records go. klpx-goal: set from the root folder down.

# What a folder's makefile may add to for the folders below it (KBUILD_CFLAGS += $(subdir-ccflags-y)).
klpx-flags := KBUILD_CPPFLAGS KBUILD_CFLAGS KBUILD_AFLAGS KBUILD_RUSTFLAGS KBUILD_LDFLAGS LINUXINCLUDE NOSTDINC_FLAGS

ifeq ($(klpx-goal),)

# The environment is what the kernel's Makefile has set up for the root folder (environment.rs).
$(foreach flags,$(klpx-flags),$(eval export klpx_root_$(flags) := $$($(flags))))
.PHONY: klpx
klpx:
	@$(MAKE) -n -f $(klpx-mk) obj=. need-builtin=1 need-modorder=1 klpx-goal=klpx klpx

else

define klpx-newline


endef
klpx-differ = $(subst x$(strip $1),,x$(strip $2))$(subst x$(strip $2),,x$(strip $1))
klpx-inherited := $(foreach flags,$(klpx-flags),$(if $(call klpx-differ,$(klpx_root_$(flags)),$($(flags))),inherits $(flags) $($(flags))$(klpx-newline)))

include $(srctree)/scripts/Makefile.build

klpx-prefix := $(filter-out ./,$(obj)/)
klpx-files = $(filter %.o,$(filter-out $(subdir-builtin) $(subdir-modorder),$1))
klpx-builtin := $(if $(need-builtin),$(call klpx-files,$(real-obj-y)))
# lib.a of this folder, if vmlinux is linked from it.
klpx-archives = $(addsuffix lib.a,$(ARCH_LIB)) $(KBUILD_VMLINUX_LIBS)
klpx-library := $(if $(filter $(klpx-prefix)lib.a $(objtree)/$(klpx-prefix)lib.a,$(klpx-archives)),$(call klpx-files,$(lib-y)))
klpx-modules := $(if $(need-modorder),$(call klpx-files,$(obj-m)))
klpx-parts = $(if $(filter $1,$(multi-obj-m)),$(addprefix $(klpx-prefix),$(call suffix-search,$(1:$(klpx-prefix)%=%),.o,-objs -y -m)),$1)
define klpx-lists
folder $(obj)
$(klpx-inherited)
folders $(subdir-ym)
arch $(SRCARCH)
objtool $(objtool)
builtin $(klpx-builtin) $(klpx-library)
$(foreach m,$(klpx-modules),module $m $(call klpx-parts,$m)$(klpx-newline))
endef

ifeq ($(MAKECMDGOALS),klpx)

klpx-record := $(klpx-out)/folder:$(subst /,:,$(obj))
$(file >$(klpx-record),$(klpx-lists))

klpx-folders := $(addprefix klpx-folder/,$(subdir-ym))
.PHONY: klpx $(klpx-folders)
$(klpx-folders): klpx-folder/%:
	@$(MAKE) -n -f $(klpx-mk) obj=$* need-builtin=$(if $(filter $*/built-in.a,$(subdir-builtin)),1) need-modorder=$(if $(filter $*/modules.order,$(subdir-modorder)),1) klpx
# Headers of the root folder are made from compiled C: its `prepare`.
klpx: $(klpx-folders) $(if $(filter .,$(obj)),prepare) $(klpx-builtin) $(klpx-library) $(foreach m,$(klpx-modules),$(call klpx-parts,$m))

else

# A rule of another folder needs something from here: a boot image, a vDSO.
klpx-record := $(klpx-out)/goal:$(subst /,:,$(obj):$(firstword $(MAKECMDGOALS)))
$(file >$(klpx-record),folder $(obj)$(klpx-newline)$(klpx-inherited))

endif

# make -n expands recipes and does not run them. So a recipe's expansion can write down by which rule a file is made,
# from what, with the values that variables have for just this file.
if_changed = $(file >>$(klpx-record),made $@ $1 source:$< $(addprefix from:,$(filter-out FORCE,$^)))
if_changed_dep = $(file >>$(klpx-record),made $@ $1 source:$< $(klpx-forced) $(klpx-searched) $(addprefix from:,$(filter-out FORCE,$^)))
if_changed_rule = $(file >>$(klpx-record),made $@ $1 source:$< $(klpx-forced) $(klpx-searched) $(klpx-traced) $(klpx-objtool))
# Rules use these for checks of an object too.
cmd = $(if $(filter %.o,$@),,$(if_changed))
filechk = $(if_changed)
klpx-flags-of-file = $(if $(filter as_o_S,$1),$(a_flags),$(if $(filter cc_o_c cc_s_c,$1),$(c_flags)))
klpx-forced = $(patsubst -include=%,include:%,$(filter -include=%,$(subst -include ,-include=,$(klpx-flags-of-file))))
# All four options name a folder to search, with or without a blank.
klpx-search-options = $(subst -idirafter,-I,$(subst -isystem,-I,$(subst -iquote,-I,$1)))
klpx-searched = $(patsubst -I%,search:%,$(filter -I%,$(subst -I ,-I,$(call klpx-search-options,$(klpx-flags-of-file)))))
klpx-traced = $(if $(filter-out $(_c_flags),$(or $(CC_FLAGS_FTRACE),none)),untraced,traced)
klpx-objtool = $(if $(objtool),$(if $(objtool-enabled),now,$(if $(delay-objtool),$(if $(is-single-obj-m),never,later),never)) $(objtool-args))

# What a distribution does not ship (a signing key, an older file that a rule starts from) is taken as there.
.DEFAULT:
	$(file >>$(klpx-record),missing $@)

endif
