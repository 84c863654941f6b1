//! The table of all diagnosis codes, in the order of `klpx explain`.
//!
//! A row is the code's constant, its name, its class (`Note` for notes), and its meaning in one sentence. Each code has a
//! section in `docs/refusals/PAGE.md` that begins with this sentence.

use crate::code::{Code, NoteCode, Row};

/// Defines the pages, a constant for each code, and the table.
macro_rules! codes {
    ($($page:ident $file:literal { $($constant:ident $name:literal $class:ident $summary:literal;)* })*) => {
        /// A page of `klpx explain`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Page {
            $(#[doc = concat!("docs/refusals/", $file, ".md")] $page,)*
        }

        impl Page {
            /// Every page, in the order of the list.
            pub const ALL: &[Page] = &[$(Page::$page),*];

            /// The page's file in docs/refusals, without `.md`.
            pub const fn file(self) -> &'static str {
                match self { $(Page::$page => $file),* }
            }
        }

        $($(codes!(@constant $page $constant $name $class $summary);)*)*

        /// Every code, in the order of the pages.
        pub const ALL: &[Row] = &[$($($constant.row()),*),*];
    };
    (@constant $page:ident $constant:ident $name:literal Note $summary:literal) => {
        #[doc = $summary]
        pub const $constant: NoteCode =
            Code { name: $name, class: (), summary: $summary, page: Page::$page };
    };
    (@constant $page:ident $constant:ident $name:literal $class:ident $summary:literal) => {
        #[doc = $summary]
        pub const $constant: Code =
            Code { name: $name, class: crate::Class::$class, summary: $summary, page: Page::$page };
    };
}

codes! {
    Patch "patch" {
        PATCH_EMPTY "klpx::patch-empty" Patch "The patch file holds nothing but blanks.";
        PATCH_UNREADABLE "klpx::patch-unreadable" Patch "The patch file can't be opened or read.";
        NOT_A_PATCH "klpx::not-a-patch" Patch "The file is no unified diff that klpx and git read in the same way.";
        PATCH_BINARY "klpx::patch-binary" Patch "The patch changes a binary file.";
        PATCH_LINK "klpx::patch-link" Patch "The patch changes a symbolic link or a submodule.";
        PATCH_PATH "klpx::patch-path" Patch "The patch names a file that no kernel can have.";
        PATCH_LEAVES_TREE "klpx::patch-leaves-tree" Patch "The patch names a path outside of the kernel's source.";
        PATCH_RENAMES "klpx::patch-renames" NotLivepatchable "The patch renames or copies a file, or names one file by two names.";
        PATCH_DOES_NOT_APPLY "klpx::patch-does-not-apply" Patch "A hunk of the patch does not fit the source of this kernel.";
        FUZZ "klpx::fuzz" Usage "The number after `--fuzz` is too large.";
        HUNK_MOVED "klpx::hunk-moved" Note "A note: a hunk applied at another line than the patch says.";
        LINES_MOVE "klpx::lines-move" Note "A note: the code of this file has other line numbers below the named line.";
        PATCH_LINE_ENDS "klpx::patch-line-ends" Note "A note: the patch has the line ends of a mail (CR and LF).";
        PASSED_OVER "klpx::passed-over" Note "A note: a file of the patch is not compiled into this kernel.";
        NOTHING_CHANGED "klpx::nothing-changed" Unchanged "The patch changes nothing that this kernel runs.";
        PATCH_CHANGES_MAKE "klpx::patch-changes-make" Note "A note: the patch changes a Makefile or Kbuild file of a folder.";
    }
    Places "places" {
        ASSEMBLY "klpx::assembly" NotLivepatchable "The patch changes an assembly source (`.S`).";
        LINKER_SCRIPT "klpx::linker-script" NotLivepatchable "The patch changes a linker script.";
        VDSO "klpx::vdso" NotLivepatchable "The patch changes the vdso.";
        BOOT_CODE "klpx::boot-code" NotLivepatchable "The patch changes code that runs before the kernel proper or outside of it.";
        HYPERVISOR_CODE "klpx::hypervisor-code" NotLivepatchable "The patch changes code of the arm64 hypervisor (arch/arm64/kvm/hyp/nvhe).";
        PATCH_CHANGES_CONFIG "klpx::patch-changes-config" NotLivepatchable "The patch changes Kconfig files or a default configuration.";
        PATCH_CHANGES_BUILD "klpx::patch-changes-build" NotLivepatchable "The patch changes the build system.";
        RUST "klpx::rust" NotLivepatchable "The patch changes Rust code.";
        RUST_BINDINGS "klpx::rust-bindings" NotLivepatchable "The patch changes a declaration or a macro of a header that Rust code uses.";
        GENERATED_HEADER "klpx::generated-header" NotLivepatchable "The patch changes a header that is generated from the layout of structures.";
        GENERATED_SOURCE "klpx::generated-source" NotLivepatchable "The patch changes a file from which the build generates code.";
        NOT_C "klpx::not-c" NotLivepatchable "A unit that the patch reaches is not compiled from C.";
        BUILD_FLAGS "klpx::build-flags" NotLivepatchable "The patch changes the compiler flags of the units of a folder.";
        NEW_MODULE "klpx::new-module" NotLivepatchable "The patch adds a kernel module.";
        RUNS_ELSEWHERE "klpx::runs-elsewhere" NotLivepatchable "The patch reaches a unit that is not a part of the running kernel's text.";
        SECOND_COPY "klpx::second-copy" Note "A note: an edited source is compiled a second time, for another image.";
        INCLUDED_FILE "klpx::included-file" Note "A note: other units include the file that the patch edits.";
    }
    Data "data" {
        CHANGED_DATA "klpx::changed-data" NotLivepatchable "The patch changes an initial value or a constant that the kernel has already.";
        LAYOUT "klpx::layout" NotLivepatchable "The patch changes the layout of a type.";
        BOOT_DECISION "klpx::boot-decision" NotLivepatchable "An `__init` function that the patch does not edit came out different.";
        INIT_DATA "klpx::init-data" NotLivepatchable "The patch changes `__init` data.";
        CHANGED_REGISTRY "klpx::changed-registry" NotLivepatchable "The patch changes a table that the kernel reads only once.";
        REGISTRY "klpx::registry" NotLivepatchable "The patch adds or changes an entry of a table that is read only once.";
        UNNAMED_TABLE "klpx::unnamed-table" NotLivepatchable "The patch changes a table whose entries have no names.";
        UNNAMED_DATA "klpx::unnamed-data" NotLivepatchable "Changed code refers to variable data that has no name.";
        BORDER_REFERENCE "klpx::border-reference" NotLivepatchable "A reference leads to the place where one variable ends and the next one begins.";
        UNSETTLED_ITEM "klpx::unsettled-item" NotLivepatchable "Nothing tells whether the kernel has this variable or function already.";
        BTF_IDS "klpx::btf-ids" NotLivepatchable "The patch changes or needs a list of BTF type numbers.";
    }
    Functions "functions" {
        NOT_TRACEABLE "klpx::not-traceable" NotLivepatchable "The patch changes a function that ftrace can't reach.";
        INIT_FUNCTION "klpx::init-function" NotLivepatchable "The patch changes or adds an `__init` function.";
        INIT_REFERENCE "klpx::init-reference" NotLivepatchable "Changed code refers to `__init` code or data.";
        EXIT_FUNCTION "klpx::exit-function" Note "A note: a changed `__exit` function of built-in code is left out.";
        OVERRIDDEN_FUNCTION "klpx::overridden-function" Note "A note: a changed weak function is left out.";
        NOTHING_TO_REPLACE "klpx::nothing-to-replace" NotLivepatchable "The changed code will not run again: no function of the running kernel uses it.";
        FOLDED_FUNCTIONS "klpx::folded-functions" NotLivepatchable "Functions share one body, and the patch does not change all of them in one way.";
        DIRECT_BRANCH "klpx::direct-branch" NotLivepatchable "A branch leads out of a function without a relocation.";
        CALLERS_REPLACED "klpx::callers-replaced" Note "A note: ftrace can't reach a changed function, so klpx replaces its callers.";
        NEW_ADDRESS "klpx::new-address" Note "A note: code takes the address of a function that the livepatch adds.";
        NO_LANDING_PAD "klpx::no-landing-pad" NotLivepatchable "The patch takes the address of a function that only direct calls reached so far.";
        HOLDER_LEFT_OUT "klpx::holder-left-out" Verification "A function that inlines edited code would be left out of the livepatch.";
        SAME_HOLDERS "klpx::same-holders" Note "A note: functions inline edited code, and their own code came out the same.";
        STALE_OBJECTS "klpx::stale-objects" Note "A note: make did not recompile some objects that depend on the patch.";
        INLINING_UNKNOWN "klpx::inlining-unknown" Note "A note: the debug information of an object does not tell klpx what was inlined.";
        CALLBACK_TWICE "klpx::callback-twice" NotLivepatchable "Two callbacks of one kind are registered for one kernel object.";
    }
    Transition "transition" {
        THREAD_MAIN "klpx::thread-main" Note "A note: the livepatch replaces the main function of a kernel thread.";
        LONG_SLEEP "klpx::long-sleep" Note "A note: tasks may sleep for long in replaced functions.";
        TRANSITION_FORCE "klpx::transition-force" Note "A note: do not end a transition by writing to the livepatch's `force` file.";
    }
    Symbols "symbols" {
        AMBIGUOUS_SYMBOL "klpx::ambiguous-symbol" Verification "Several symbols of the kernel fit, and nothing tells them apart.";
        NOT_IN_KERNEL "klpx::not-in-kernel" Verification "klpx's build of the original source has a symbol that the kernel lacks.";
        NOT_IN_KALLSYMS "klpx::not-in-kallsyms" NotLivepatchable "The kernel's own table of names (kallsyms) does not hold this symbol.";
        MOVING_SYMBOL "klpx::moving-symbol" NotLivepatchable "A module's symbol has another position once the module's init code is freed.";
        NOT_NEW "klpx::not-new" NotLivepatchable "The patch adds a global with a name that another file of the kernel has already.";
        UNRESOLVED_SYMBOL "klpx::unresolved-symbol" NotLivepatchable "Changed code refers to a symbol that the livepatch can't reach.";
        OBJECT_NAME "klpx::object-name" NotLivepatchable "The name of the patched module does not fit into a livepatch.";
        NO_SUCH_MODULE "klpx::no-such-module" Input "The file of a module was not found.";
        KALLSYMS_FORM "klpx::kallsyms-form" Input "The table of symbols inside of the kernel image can't be read.";
    }
    SpecialSections "special-sections" {
        SPECIAL_SECTION "klpx::special-section" NotLivepatchable "A changed function has entries in a table that a module may not have.";
        SPECIAL_SECTION_FORM "klpx::special-section-form" NotLivepatchable "A table that describes code has a form that klpx does not know.";
        RUNTIME_CONSTANT "klpx::runtime-constant" NotLivepatchable "A changed function uses a constant that was patched into the kernel at boot.";
        MODULE_STATIC_KEY "klpx::module-static-key" NotLivepatchable "A replaced function of a module uses a static key of that module.";
        MODULE_STATIC_CALL "klpx::module-static-call" NotLivepatchable "A replaced function of a module makes a static call of that module.";
        TRACEPOINT_DROPPED "klpx::tracepoint-dropped" Note "A note: a tracepoint of the patched module stays off in the replaced function.";
        LATE_ALTERNATIVE "klpx::late-alternative" NotLivepatchable "An alternative instruction of a replaced function refers to a module's symbol.";
        RELOCATION_TYPE "klpx::relocation-type" NotLivepatchable "Code holds a relocation that the kernel's module loader does not take.";
        UNKNOWN_SECTION "klpx::unknown-section" NotLivepatchable "Code refers to a section that is not loaded, or that only the build reads.";
    }
    External "external" {
        EXTERNAL_LTO "klpx::external-lto" NotLivepatchable "An external module of a kernel with LTO can't be patched.";
        EXTERNAL_UNITS "klpx::external-units" NotLivepatchable "The patch changes the list of units that make up the external module.";
        ANOTHER_MODULE "klpx::another-module" NotLivepatchable "The patch also changes another module of the same folder.";
    }
    Lto "lto" {
        THIN_LINK "klpx::thin-link" Build "The thin link fails.";
        ARCHIVE "klpx::archive" Build "An archive of the build can't be listed.";
        RENUMBERED_STATIC "klpx::renumbered-static" NotLivepatchable "The patch renumbers a static variable that another unit refers to by its number.";
    }
    Kernel "kernel" {
        ANOTHER_BUILD "klpx::another-build" Verification "The kernel to be patched is another build than the one that klpx made.";
        KERNEL_DIFFERS "klpx::kernel-differs" Verification "One function, object or type differs from the kernel that is to be patched.";
        EXPORT_DIFFERS "klpx::export-differs" Verification "An export's checksum is not the one in Module.symvers.";
        SECTION_BUILD_DIFFERS "klpx::section-build-differs" Verification "A symbol that has a section of its own is not the same as in the kernel.";
        COMPILER_MISMATCH "klpx::compiler-mismatch" Environment "The compiler at hand is not the one that built the kernel.";
        LINKER_MISMATCH "klpx::linker-mismatch" Environment "The linker is of another version than the one that the kernel was built with.";
        MACHINE_MISMATCH "klpx::machine-mismatch" Verification "The vmlinux is of another architecture than the configuration.";
        RELEASE_MISMATCH "klpx::release-mismatch" Verification "The files at hand are of different releases of the kernel.";
        PACKAGE_MISMATCH "klpx::package-mismatch" Verification "The files found are of different versions of the kernel's packages.";
        SOURCE_MISMATCH "klpx::source-mismatch" Build "The source is not the one that the kernel was made from.";
        SOURCE_PACKAGE_UNKNOWN "klpx::source-package-unknown" Note "A note: the source states its own version, but not the version of its package.";
        SOURCE_PACKED "klpx::source-packed" Note "A note: the source is a tarball.";
        NO_BANNER "klpx::no-banner" Note "A note: vmlinux has no banner that states its release.";
        NO_BTF "klpx::no-btf" Note "A note: the kernel has no BTF, so klpx did not compare types with it.";
        BAD_BTF "klpx::bad-btf" Input "The types in a .BTF section can't be read.";
        CONFIG_CHANGED "klpx::config-changed" Build "kbuild would build with another configuration than the kernel's.";
        INLINING_LISTS "klpx::inlining-lists" Note "A note: both sources are compiled with the kernel's own inlining lists.";
        MISSING_LISTS "klpx::missing-lists" Build "The inlining lists that the kernel was built with are missing.";
    }
    Configuration "configuration" {
        CONFIG_MISSING "klpx::config-missing" Build "The kernel configuration is not where it should be.";
        CONFIG_INVALID "klpx::config-invalid" Build "The file is no kernel configuration, or does not say which compiler made it.";
        NO_MODULES "klpx::no-modules" NotLivepatchable "The kernel was built without CONFIG_MODULES.";
        NO_LIVEPATCH "klpx::no-livepatch" NotLivepatchable "The kernel was built without CONFIG_LIVEPATCH.";
        NO_KALLSYMS "klpx::no-kallsyms" NotLivepatchable "The kernel was built without CONFIG_KALLSYMS.";
        RANDSTRUCT "klpx::randstruct" NotLivepatchable "The layouts of this kernel's structures depend on a random seed.";
        LATENT_ENTROPY "klpx::latent-entropy" NotLivepatchable "The kernel was built with the latent entropy plugin.";
        DEAD_CODE_ELIMINATION "klpx::dead-code-elimination" NotLivepatchable "The final link of this kernel drops functions that nothing uses.";
        TRIMMED_SYMBOLS "klpx::trimmed-symbols" NotLivepatchable "The kernel dropped exports that none of its own modules uses.";
        ARM64_TOO_OLD "klpx::arm64-too-old" NotLivepatchable "This release of Linux has no livepatching on arm64.";
        MAKE_VARIABLE "klpx::make-variable" Usage "`--make` was given a variable that klpx does not take.";
        MAKE_FILE "klpx::make-file" Input "A file that `--make` names is missing, is no file, or changes during the run.";
        PROFILE_MISSING "klpx::profile-missing" Input "The kernel was compiled with a profile that is no longer where it was.";
        PROFILE_FOUND "klpx::profile-found" Note "The kernel was compiled with a profile, and klpx found the profile.";
        PROFILE_UNKNOWN "klpx::profile-unknown" Note "Nothing tells whether the kernel was compiled with a profile.";
        UNSUPPORTED_ARCHITECTURE "klpx::unsupported-architecture" NotLivepatchable "The configuration is for an architecture that klpx does not support.";
    }
    Finding "finding" {
        WHICH_KERNEL "klpx::which-kernel" Usage "It is not clear which kernel is meant.";
        NO_RELEASE "klpx::no-release" Build "A build tree does not say which release it builds.";
        BAD_RELEASE "klpx::bad-release" Input "A text that should be the release of a kernel can't be one.";
        KERNEL_INCOMPLETE "klpx::kernel-incomplete" Environment "Some of the kernel's files are missing.";
        BUILD_DIR_MISSING "klpx::build-dir-missing" Build "The named build tree can't be opened.";
        SOURCE_MISSING "klpx::source-missing" Build "The named source can't be opened.";
        NOT_A_KERNEL_TREE "klpx::not-a-kernel-tree" Build "The folder is no source of a kernel.";
        SOURCE_LINK "klpx::source-link" Build "A link in the source leads to a folder that holds the link itself.";
        BAD_TARBALL "klpx::bad-tarball" Input "A tarball of source can't be unpacked.";
        BAD_VMLINUX "klpx::bad-vmlinux" Input "The file is no vmlinux that can be patched.";
        NO_SYMBOLS "klpx::no-symbols" Input "The file is no kernel image with symbols.";
        NOT_LINKED "klpx::not-linked" Input "klpx needs a linked vmlinux, and the file is an object (vmlinux.o).";
        BAD_SYMVERS "klpx::bad-symvers" Input "A line of Module.symvers is no export.";
        NO_SUCH_FOLDER "klpx::no-such-folder" Usage "A named folder does not exist.";
        FETCH_FAILED "klpx::fetch-failed" Environment "The package manager could not download a package.";
        FETCH_UNSUPPORTED "klpx::fetch-unsupported" Usage "klpx can't fetch packages of this kernel.";
    }
    Build "build" {
        ORIGINAL_SOURCE_DOES_NOT_BUILD "klpx::original-source-does-not-build" Build "The unpatched source does not build.";
        PATCHED_SOURCE_DOES_NOT_COMPILE "klpx::patched-source-does-not-compile" Build "The patched source does not compile.";
        GLUE_DOES_NOT_BUILD "klpx::glue-does-not-build" Build "The small module around a livepatch can't be built.";
        LINK_FAILED "klpx::link-failed" Build "The livepatch module can't be linked.";
        OBJTOOL_FAILED "klpx::objtool-failed" Build "objtool fails on a unit.";
        KBUILD_UNITS "klpx::kbuild-units" Build "kbuild does not list its units, or klpx does not understand the list.";
        NO_COMMAND "klpx::no-command" Build "kbuild's record of a compilation or link can't be understood, or is missing.";
        MISSING_TOOL "klpx::missing-tool" Environment "A program that klpx or the kernel's makefiles need is not installed.";
        CANNOT_RUN "klpx::cannot-run" Environment "A program is there and can't be started.";
    }
    Verification "verification" {
        VERIFY_ARRAYS "klpx::verify-arrays" Verification "The lists of functions that the module replaces are not right.";
        VERIFY_DATA "klpx::verify-data" Verification "Changed data is missing from the module, but code that needs the data is there.";
        VERIFY_FORMAT "klpx::verify-format" Verification "A section that the kernel's loader needs is missing from the module.";
        VERIFY_FRAME "klpx::verify-frame" Verification "A function lacks its frame in .init.eh_frame.";
        VERIFY_FTRACE "klpx::verify-ftrace" Verification "ftrace can't redirect a function that the module replaces.";
        VERIFY_GLUE "klpx::verify-glue" Verification "The module lacks a part of the glue that kbuild compiled for it.";
        VERIFY_IMPORT "klpx::verify-import" Verification "The module imports a symbol that the kernel does not give it.";
        VERIFY_MEANING "klpx::verify-meaning" Verification "A piece of the module is not the same as in the patched build.";
        VERIFY_MODINFO "klpx::verify-modinfo" Verification "The module's modinfo is not right.";
        VERIFY_RELOCATION "klpx::verify-relocation" Verification "A relocation of the module is one that the kernel's loader does not take.";
        VERIFY_SPECIAL_SECTION "klpx::verify-special-section" Verification "A table that describes code is not right in the module.";
        VERIFY_SYMBOL "klpx::verify-symbol" Verification "A livepatch symbol of the module does not lead to one symbol of the kernel.";
    }
    Test "test" {
        TRIAL_FAILED "klpx::trial-failed" Verification "The livepatch fails its trial in a guest.";
        GUEST_FAILED "klpx::guest-failed" Environment "The guest does not boot, or the emulator does not run.";
        MODULE_MISSING "klpx::module-missing" Environment "A module of the kernel was not found.";
        NO_BOOT_IMAGE "klpx::no-boot-image" Environment "The boot image of the kernel is not in its usual places.";
    }
    Signing "signing" {
        NO_SIGNATURE "klpx::no-signature" Note "A note: the kernel loads signed modules only, and this one has no signature.";
        NOT_SIGNED "klpx::not-signed" Environment "The module can't be signed.";
        SIGNED_ALREADY "klpx::signed-already" Usage "The module has a signature already.";
        BAD_SIGNATURE "klpx::bad-signature" Input "The file holds no signature that the kernel reads.";
        BAD_CERTIFICATE "klpx::bad-certificate" Input "The file holds no certificate.";
        SIGNATURE "klpx::signature" Verification "The module's signature does not match the certificate, or can't be checked.";
    }
    Packaging "packaging" {
        NOT_PACKAGED "klpx::not-packaged" Usage "The package can't be made.";
        PACKAGE_TOOL "klpx::package-tool" Environment "The program that makes the package fails.";
    }
    Host "host" {
        KERNEL_TAKES_NONE "klpx::kernel-takes-none" Environment "The running kernel takes no livepatches.";
        OTHER_RELEASE "klpx::other-release" Verification "The livepatch is for another release of the kernel than the running one.";
        OTHER_BUILD_ID "klpx::other-build-id" Verification "The livepatch is for another build of this release.";
        NO_BUILD_ID "klpx::no-build-id" Verification "The livepatch does not say which build of the kernel it is for.";
        UNSIGNED "klpx::unsigned" Verification "The livepatch has no signature, and the kernel loads signed modules only.";
        NAME_TAKEN "klpx::name-taken" Verification "A module with the livepatch's name is loaded.";
        TRANSITION_BUSY "klpx::transition-busy" Environment "Another livepatch is in transition.";
        PATCHED_BY_ANOTHER "klpx::patched-by-another" Verification "Another livepatch patches the same functions, and this one is not cumulative.";
        LOAD_REFUSED "klpx::load-refused" Verification "The kernel refuses the livepatch.";
        CANNOT_LOAD "klpx::cannot-load" Environment "The machine can't load a livepatch as it is now.";
        TRANSITION_REVERTED "klpx::transition-reverted" Reverted "The transition did not end in time, and klpx-host reversed it.";
        TRANSITION_STUCK "klpx::transition-stuck" Stuck "The transition does not end, and klpx-host can't reverse it.";
        MODULE_IN_USE "klpx::module-in-use" Environment "The livepatch is disabled, and its module can't be removed.";
        NOT_LOADED "klpx::not-loaded" Usage "No livepatch of that name is loaded.";
        NOT_INSTALLED "klpx::not-installed" Usage "No livepatch of that name is installed for this kernel.";
        KERNEL_NOT_INSTALLED "klpx::kernel-not-installed" Environment "The kernel that the livepatch is for is not installed.";
        CRASH_MARK "klpx::crash-mark" Verification "The machine went down while this livepatch was being loaded.";
    }
    Cache "cache" {
        CACHE_CORRUPT "klpx::cache-corrupt" Environment "Something in the cache is not as klpx left it.";
        CACHE_IN_TREE "klpx::cache-in-tree" Usage "The cache would lie in the kernel's source or build tree.";
        CACHE_LOCKED "klpx::cache-locked" Environment "The kernel's workspace is locked, and no running klpx holds the lock.";
        CACHE_STALE "klpx::cache-stale" Environment "A file in the cache differs from the file in the source tree.";
        NO_CACHE_DIR "klpx::no-cache-dir" Environment "There is no place for the cache, because HOME is not set.";
        NO_SUCH_KERNEL "klpx::no-such-kernel" Usage "No kernel in the cache has a key that begins with the given text.";
        UNTRUSTED_FOLDER "klpx::untrusted-folder" Environment "klpx does not work in a folder that others can write to or replace.";
        DISK_FULL "klpx::disk-full" Environment "The disk is full, or has too little room for the build.";
    }
    Files "files" {
        BAD_ELF "klpx::bad-elf" Input "The file is no ELF file that klpx can use.";
        BAD_COMPRESSION "klpx::bad-compression" Input "A compressed file can't be unpacked, or holds more than klpx reads.";
        BAD_DWARF "klpx::bad-dwarf" Input "Debug information can't be read.";
        NO_DWARF "klpx::no-dwarf" Input "The file has no debug information that klpx can read.";
        SPLIT_DWARF "klpx::split-dwarf" Input "The debug information is in other files (.dwo).";
        SUPPLEMENTARY_DWARF "klpx::supplementary-dwarf" Input "A part of the debug information is in another file.";
        NOT_RELOCATABLE "klpx::not-relocatable" Input "The file is no relocatable object.";
        UNKNOWN_MACHINE "klpx::unknown-machine" Input "The object is for a machine that klpx does not know.";
        DIFFERENT_MACHINES "klpx::different-machines" Input "The two objects to compare are for different machines.";
        TOO_LONG "klpx::too-long" Input "A text file is longer than any file of its kind that klpx reads.";
        FILE_CHANGED "klpx::file-changed" Input "A file became shorter while klpx read it.";
        IO "klpx::io" Environment "The system could not read, write or open a file.";
        NOT_A_MODULE "klpx::not-a-module" Input "The file should be a kernel module, and is none.";
        NOT_A_LIVEPATCH "klpx::not-a-livepatch" Input "The file is no livepatch that klpx made.";
    }
    Commands "commands" {
        USAGE "klpx::usage" Usage "The command line asks for something that klpx can't do.";
        NO_SUCH_CODE "klpx::no-such-code" Usage "klpx has no code with the name that `klpx explain` was given.";
        BAD_NAME "klpx::bad-name" Usage "The name can't be that of a livepatch.";
        OUTPUT_IS_FOLDER "klpx::output-is-folder" Usage "The path for an output file is a folder.";
        OUTPUT_IS_INPUT "klpx::output-is-input" Usage "The output would be written over a file that klpx reads.";
        NO_SUCH_FUNCTION "klpx::no-such-function" Usage "The file has no function of that name.";
        BAD_LIST "klpx::bad-list" Input "A list of an earlier `klpx inline-check --consistent` can't be read.";
        BAD_PROFILE "klpx::bad-profile" Input "A line of a file for `klpx inline-check --hot` names no function.";
        INTERRUPTED "klpx::interrupted" Interrupted "A signal stopped klpx.";
        INTERNAL "klpx::internal" Internal "A fault in klpx itself.";
        LINK "klpx::link" Internal "A fault in klpx: the linked module is not made of what klpx gave the linker.";
        MODULE_FORM "klpx::module-form" Internal "A fault in klpx: the linked module holds something that no kernel module has.";
        NOT_COPIED "klpx::not-copied" Internal "A fault in klpx: code in the livepatch refers to an item that was not copied.";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::ALL;
    use crate::code::PREFIX;

    #[test]
    fn names_are_unique_and_have_one_form() {
        let names: BTreeSet<_> = ALL.iter().map(|code| code.name).collect();
        assert_eq!(names.len(), ALL.len());
        for code in ALL {
            let name = code.name.strip_prefix(PREFIX).expect("the prefix");
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(!name.is_empty() && name.bytes().all(plain), "{name}");
            assert_eq!(name, code.short_name());
        }
    }

    #[test]
    fn a_summary_is_one_short_sentence() {
        for code in ALL {
            assert!(code.summary.ends_with('.') && code.summary.chars().count() <= 80, "{}", code.name);
        }
    }

    /// Each constant has the name of its code.
    #[test]
    fn constants_are_named_after_their_codes() {
        let rows = include_str!("codes.rs").lines().filter_map(|line| line.trim().split_once(" \"klpx::"));
        let rows: Vec<_> = rows.filter(|(_, rest)| rest.ends_with("\";")).collect();
        assert_eq!(rows.len(), ALL.len());
        for ((constant, _), code) in rows.into_iter().zip(ALL) {
            assert_eq!(constant, code.short_name().to_uppercase().replace('-', "_"));
        }
    }
}
