//! The shadow call stack: compiled in, or made from pointer authentication when the kernel starts, by the frames in
//! `.eh_frame`.

use klpx_klp_emit::writer::Relocatable;
use klpx_normalize::elf::ElfFile;
use klpx_normalize::frames::frames;
use klpx_testkit::builds::Builds;
use klpx_testkit::fixture::{ARM64_CLANG, Toolchain};
use klpx_testkit::kernel::Kernel;

use super::{Livepatch, builds, compilers};

const SOURCE: &str = r#"
extern int other(int);
int calls(int x) { return other(x) + 1; }
int leaf(int x) { return x + 2; }
int stays(int x) { return other(x) + 3; }
"#;

/// The flags that UNWIND_PATCH_PAC_INTO_SCS adds.
const DYNAMIC: [&str; 3] = ["-mbranch-protection=pac-ret", "-fasynchronous-unwind-tables", "-ffixed-x18"];
/// DW_CFA_AARCH64_negate_ra_state: the return address becomes signed, or stops being signed.
const SIGNED: u8 = 0x2d;

fn dynamic(toolchain: &'static Toolchain) -> Builds {
    let patched = SOURCE.replace("+ 1", "+ 10").replace("+ 2", "+ 20");
    Builds::of(toolchain, &[toolchain.traced, &DYNAMIC].concat(), SOURCE, &patched)
}

#[test]
fn the_frames_of_copied_functions_come_along() {
    for (compiler, toolchain) in compilers() {
        let builds = dynamic(toolchain);
        assert_eq!(builds.changed(), ["calls", "leaf"], "{compiler}");
        let livepatch = Livepatch::of(&builds);
        let elf = livepatch.elf();
        let table = elf.section_by_name(b".init.eh_frame").expect("frames");
        let places = livepatch.places(".init.eh_frame");
        let found = frames(&elf, table);
        assert_eq!(found.len(), places.len(), "{compiler}: every record is read");
        for (name, signed) in [("calls", 2), ("leaf", 0)] {
            let (section, entry, size) = livepatch.function(name);
            // GCC's frames begin after the trace site, Clang's at the entry.
            let inside = |&(of, place): &(_, u64)| of == section && (entry..entry + size).contains(&place);
            let at = places.iter().position(inside).expect("a frame");
            let size = size - (places[at].1 - entry);
            let bytes = found[at].bytes;
            assert_eq!(
                u32::from_le_bytes(bytes[12..16].try_into().expect("four")),
                size as u32,
                "{compiler} {name}"
            );
            let marks = bytes[17..].iter().filter(|&&byte| byte == SIGNED).count();
            assert_eq!(marks, signed, "{compiler} {name}: {bytes:x?}");
            // "zR": the only form that the kernel accepts
            assert_eq!(&found[at].common[9..12], b"zR\0", "{compiler}");
        }
    }
}

#[test]
fn the_kernel_finds_the_common_information_by_order_and_linkers_by_distance() {
    for (compiler, toolchain) in compilers() {
        let livepatch = Livepatch::of(&dynamic(toolchain));
        let elf = livepatch.elf();
        let table = elf.section_by_name(b".init.eh_frame").expect("frames");
        let bytes = elf.section_bytes(table);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
        let (mut at, mut last) = (0, None);
        while at < bytes.len() {
            assert_ne!(word(at), 0, "{compiler}: no terminator before the end");
            match word(at + 4) {
                0 => last = Some(at),
                back => assert_eq!(Some(at + 4 - back as usize), last, "{compiler}"),
            }
            at += 4 + word(at) as usize;
        }
    }
}

#[test]
fn a_lost_or_damaged_frame_is_caught() {
    let builds = dynamic(&ARM64_CLANG);
    let livepatch = Livepatch::of(&builds);
    let damage: [fn(&mut klpx_klp_emit::writer::OutputSection, usize); 2] = [
        |section, at| {
            section.relas.iter_mut().for_each(|t| t.relocations.retain(|r| r.offset != at as u64 + 8))
        },
        |section, at| section.data[at + 18] ^= 1,
    ];
    let elf = livepatch.elf();
    let table = elf.section_by_name(b".init.eh_frame").expect("frames");
    let (section, entry, _) = livepatch.function("calls");
    let place = livepatch.places(".init.eh_frame").iter().position(|&place| place == (section, entry));
    let start = frames(&elf, table)[place.expect("a frame")].start as usize;
    for spoil in damage {
        let mut module = Relocatable::read(&elf).expect("a module");
        spoil(module.sections.iter_mut().find(|s| s.name == b".init.eh_frame").expect("frames"), start);
        let damaged = ElfFile::from_bytes("livepatch.ko", module.write());
        let failure = builds.verify("vmlinux", &Kernel::default(), &damaged).expect_err("caught");
        assert!(failure.diagnoses().any(|found| found.code == "klpx::verify-frame"));
    }
}

#[test]
fn without_frames_none_are_made() {
    for (compiler, toolchain) in compilers() {
        let builds = builds(toolchain, &["-mbranch-protection=pac-ret"], SOURCE, "+ 1", "+ 10");
        assert_eq!(Livepatch::of(&builds).places(".init.eh_frame"), [], "{compiler}");
    }
}

#[test]
fn a_shadow_call_stack_that_is_compiled_in_is_code_like_any_other() {
    let flags = ["-ffixed-x18", "-fsanitize=shadow-call-stack"];
    let builds = builds(&ARM64_CLANG, &flags, SOURCE, "+ 1", "+ 10");
    let livepatch = Livepatch::of(&builds);
    let (_, _, size) = livepatch.function("calls");
    let code = livepatch.words("calls", 0, size as i64);
    // str x30, [x18], #8 and ldr x30, [x18, #-8]!
    assert!(code.contains(&0xf800_865e) && code.contains(&0xf85f_8e5e), "{code:x?}");
}

/// A record belongs to the common information of its function, and to no other.
#[test]
fn functions_of_other_common_information_keep_theirs() {
    let source = "extern int other(int); int first(int x) { return other(x) + 1; }
        int second(int x) { asm volatile(\".cfi_signal_frame\"); return other(x) + 1; }
        int third(int x) { return other(x) * 3 + 1; } int fourth(int x) { return other(x) * 5 + 1; }";
    for (compiler, toolchain) in compilers() {
        let builds = Builds::of(
            toolchain,
            &[toolchain.traced, &DYNAMIC].concat(),
            source,
            &source.replace("+ 1", "+ 10"),
        );
        let emitted = builds.emit("vmlinux", &Kernel::default()).expect("a livepatch");
        let file = ElfFile::from_bytes("closure.o", emitted.object);
        let elf = file.parse().expect("an object");
        let table = elf.section_by_name(b".eh_frame").expect("frames");
        let found = frames(&elf, table);
        let signals =
            found.iter().map(|frame| frame.common.windows(2).any(|two| two == b"RS")).collect::<Vec<_>>();
        assert_eq!(signals.iter().filter(|signal| **signal).count(), 1, "{compiler}: {signals:?}");
        let bytes = elf.section_bytes(table);
        let mut at = 0;
        let mut commons = 0;
        while at < bytes.len() {
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
            commons += usize::from(word(at + 4) == 0);
            at += 4 + word(at) as usize;
        }
        assert!((2..=3).contains(&commons), "{compiler}: one serves those that follow: {commons}");
    }
}
