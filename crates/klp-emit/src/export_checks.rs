//! Compares checksums of exports: genksyms' for a compiled unit, and those in the kernel's Module.symvers. A difference
//! means that the unit was compiled with other types than the kernel.

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, codes};

use crate::image::Exports;

/// Counts the unit's exports that have the kernel's checksum.
///
/// `lines` is the text in which kbuild records the checksums (`#SYMVER name 0xchecksum`, scripts/Makefile.build, in the
/// unit's `.cmd` file); other lines are skipped. Without CONFIG_MODVERSIONS there are no checksums.
///
/// # Errors
/// Each export that the kernel's object `object` lacks, or has with another checksum.
pub fn check(lines: &str, object: &str, exports: &Exports) -> Result<usize, Vec<Diagnosis>> {
    let mut agreed = 0;
    let mut faults = Vec::new();
    for (name, crc) in lines.lines().filter_map(parse) {
        let why = match exports.get(name).filter(|export| export.object == object) {
            None => format!("the unit exports it, and {object} does not"),
            Some(export) if export.crc != crc => format!(
                "its checksum is {:#010x} in the kernel and {crc:#010x} in klpx's build: they have other types",
                export.crc
            ),
            Some(_) => {
                agreed += 1;
                continue;
            }
        };
        faults.push(
            Diagnosis::new(
                &codes::EXPORT_DIFFERS,
                "an export of the kernel differs",
                why,
                crate::witness::REMEDY,
            )
            .place(DiagnosisPlace::symbol(name)),
        );
    }
    if faults.is_empty() { Ok(agreed) } else { Err(faults) }
}

fn parse(line: &str) -> Option<(&str, u32)> {
    let (name, crc) = line.strip_prefix("#SYMVER ")?.split_once(' ')?;
    Some((name, u32::from_str_radix(crc.trim().strip_prefix("0x")?, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMVERS: &str = "0x00000012\tkfree\tvmlinux\tEXPORT_SYMBOL\t\n\
                           0x00000034\tdm_table_run\tdrivers/md/dm-mod\tEXPORT_SYMBOL_GPL\t\n";

    /// The result for an object's lines.
    fn said(object: &str, lines: &str) -> Result<usize, Vec<String>> {
        let exports = Exports::parse(SYMVERS).expect("sound lines");
        check(lines, object, &exports)
            .map_err(|faults| faults.into_iter().map(|f| format!("{} {f}", f.code)).collect())
    }

    #[test]
    fn checksums_are_compared_with_those_of_the_same_object() {
        let command = "savedcmd_mm/slub.o := gcc -c\n";
        assert_eq!(said("vmlinux", &format!("{command}#SYMVER kfree 0x00000012\n")), Ok(1));
        assert_eq!(said("dm_mod", "#SYMVER dm_table_run 0x00000034"), Ok(1));
        assert_eq!(said("vmlinux", command), Ok(0));
        for (object, line, why) in [
            (
                "vmlinux",
                "#SYMVER kfree 0x00000013",
                "its checksum is 0x00000012 in the kernel and 0x00000013",
            ),
            ("vmlinux", "#SYMVER kvfree 0x00000012", "the unit exports it, and vmlinux does not"),
            ("vmlinux", "#SYMVER dm_table_run 0x00000034", "the unit exports it, and vmlinux does not"),
        ] {
            let faults = said(object, line).expect_err(line);
            assert!(faults.len() == 1 && faults[0].starts_with("klpx::export-differs"), "{faults:?}");
            assert!(faults[0].contains(why), "{faults:?}");
        }
    }
}
