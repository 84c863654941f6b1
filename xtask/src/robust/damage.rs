//! Gives damaged copies of files to klpx and checks its answers.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};

use super::Setting;
use super::running::RunningKlpx;

/// The damage to a copy of a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// Only this many bytes stay.
    Length(u64),
    /// Only this many 256ths of the length stay.
    Part(u64),
    /// This many last bytes are gone: the section headers stand at the end.
    End(u64),
    /// The section headers contain nonsense.
    SectionHeaders,
    /// One byte in this many is changed.
    Scattered(u64),
}

/// Makes a damaged copy of `file`.
fn damage(file: &Path, damage: Damage, output: &Path) -> Result<()> {
    fs::copy(file, output).with_context(|| format!("can't copy {}", file.display()))?;
    let mut copy = fs::File::options().read(true).write(true).open(output)?;
    let length = copy.metadata()?.len();
    match damage {
        Damage::Length(length) => copy.set_len(length)?,
        Damage::Part(part) => copy.set_len(length / 256 * part)?,
        Damage::End(bytes) => copy.set_len(length - bytes)?,
        Damage::SectionHeaders => {
            // e_shoff of ELF64
            copy.seek(SeekFrom::Start(0x28))?;
            let mut offset = [0; 8];
            copy.read_exact(&mut offset)?;
            let offset = u64::from_le_bytes(offset);
            copy.seek(SeekFrom::Start(offset))?;
            let size = usize::try_from(length.saturating_sub(offset))?;
            copy.write_all(&vec![0xa5; size])?;
        }
        Damage::Scattered(step) => {
            let mut bytes = fs::read(output)?;
            // The ELF identification stays, because klpx would refuse everything at once without it.
            let places = (16..bytes.len()).step_by(usize::try_from(step)?);
            for (n, place) in places.enumerate() {
                bytes[place] ^= u8::try_from(n % 255)? + 1;
            }
            fs::write(output, bytes)?;
        }
    }
    Ok(())
}

pub(super) fn damaged_objects(setting: &Setting<'_>) -> Result<Vec<String>> {
    let original = setting.kernel_dir.join("units/drivers/md/md.o");
    let scratch = tempfile::tempdir_in(&setting.dir)?;
    let copy = scratch.path().join("md.o");
    let mut failures = Vec::new();
    for kind in [
        Damage::Length(0),
        Damage::Length(63),
        Damage::Part(64),
        Damage::Part(200),
        Damage::End(1),
        Damage::SectionHeaders,
    ] {
        damage(&original, kind, &copy)?;
        for pair in [[&original, &copy], [&copy, &original]] {
            let mut command = setting.klpx.command();
            command.arg("diff").args(pair);
            let ended = RunningKlpx::start(command)?.wait()?;
            let judged = ended.judge(9, "klpx::", &["md.o"]);
            failures.extend(judged.into_iter().map(|failure| format!("klpx diff, {kind:?}: {failure}")));
        }
    }
    Ok(failures)
}

pub(super) fn damaged_modules(setting: &Setting<'_>) -> Result<Vec<String>> {
    let scratch = tempfile::tempdir_in(&setting.dir)?;
    let copy = scratch.path().join("livepatch.ko");
    let truncated = (0..256).step_by(3).map(Damage::Part).chain([Damage::End(1), Damage::SectionHeaders]);
    // The numbers are primes, so that each run damages different places. Much of a module may change, and the file is
    // still a module.
    let scattered = [7, 31, 101, 499, 997, 2003, 4001, 8009, 16001].map(Damage::Scattered);
    let mut failures = Vec::new();
    for (kind, refused) in truncated.map(|kind| (kind, true)).chain(scattered.map(|kind| (kind, false))) {
        damage(&setting.module, kind, &copy)?;
        let mut command = setting.klpx.command();
        command.arg("inspect").arg(&copy);
        let ended = RunningKlpx::start(command)?.wait()?;
        let judged = match (refused, ended.code()) {
            (false, Some(0)) => Vec::new(),
            (false, Some(7)) => ended.judge(7, "klpx::", &[]),
            _ => ended.judge(9, "klpx::", &["livepatch.ko"]),
        };
        failures.extend(judged.into_iter().map(|failure| format!("klpx inspect, {kind:?}: {failure}")));
    }
    Ok(failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_as_it_says() {
        let scratch = tempfile::tempdir().expect("a folder");
        let (file, copy) = (scratch.path().join("a"), scratch.path().join("b"));
        let mut bytes = vec![0; 1024];
        bytes[0x28..0x30].copy_from_slice(&1000_u64.to_le_bytes());
        fs::write(&file, &bytes).expect("write");
        let damaged = |kind| {
            damage(&file, kind, &copy).expect("damage");
            fs::read(&copy).expect("read")
        };
        assert_eq!(damaged(Damage::Length(63)).len(), 63);
        assert_eq!(damaged(Damage::Part(64)).len(), 256);
        assert_eq!(damaged(Damage::End(1)).len(), 1023);
        let headers = damaged(Damage::SectionHeaders);
        assert_eq!((&headers[..1000], &headers[1000..]), (&bytes[..1000], &[0xa5; 24][..]));
        let scattered = damaged(Damage::Scattered(100));
        let other = scattered.iter().zip(&bytes).filter(|(a, b)| a != b).count();
        assert_eq!((scattered.len(), other), (1024, 11));
    }
}
