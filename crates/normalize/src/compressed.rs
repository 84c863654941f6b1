//! Unpacks compressed files, recognised by their first bytes. Most distributions ship modules as `.ko.xz`, `.ko.zst` or
//! `.ko.gz` (scripts/Makefile.modinst). Owns the limits of what is unpacked into memory. Never writes a file.

use std::io::{self, Read};
use std::path::Path;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};

/// The largest file that is unpacked, in bytes. The largest module of a distribution is a twentieth of this size.
const LIMIT: usize = 512 << 20;
/// The largest dictionary or window that a decoder may allocate, in bytes. `xz -9` takes 64 MiB, kbuild 2 MiB.
const WINDOW: u64 = 128 << 20;

/// A compression format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileCompression {
    Xz,
    Zstd,
    Gzip,
}

/// Each format with the first bytes of its files and the ending of their names.
const FORMATS: [(FileCompression, &[u8], &str); 3] = [
    (FileCompression::Xz, &[0xfd, b'7', b'z', b'X', b'Z', 0], ".xz"),
    (FileCompression::Zstd, &[0x28, 0xb5, 0x2f, 0xfd], ".zst"),
    (FileCompression::Gzip, &[0x1f, 0x8b], ".gz"),
];

/// Returns a file's name without the ending of a compression format.
pub fn plain_name(name: &str) -> &str {
    FORMATS.iter().find_map(|(_, _, end)| name.strip_suffix(end)).unwrap_or(name)
}

/// Returns the contents of a compressed file, or `None` if the first bytes are of no known format. `path` is for
/// messages.
///
/// # Errors
/// `klpx::bad-compression` if the file is damaged, or larger than klpx unpacks.
pub fn unpack(path: &Path, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    unpack_up_to(LIMIT, path, bytes)
}

fn unpack_up_to(limit: usize, path: &Path, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let Some((format, ..)) = FORMATS.iter().find(|(_, magic, _)| bytes.starts_with(magic)) else {
        return Ok(None);
    };
    let refuse = |why: String| {
        Diagnosis::new(
            &codes::BAD_COMPRESSION,
            "a compressed file can't be unpacked",
            why,
            "install the package again that the file came from",
        )
        .place(DiagnosisPlace::file(path.display().to_string(), None))
    };
    let unpacked = match format {
        FileCompression::Xz => xz(bytes, limit),
        FileCompression::Zstd => zstd(bytes, limit),
        FileCompression::Gzip => up_to(limit, flate2::read::MultiGzDecoder::new(bytes)),
    };
    let unpacked = unpacked.map_err(|error| refuse(error.to_string()))?;
    if unpacked.len() > limit {
        return Err(refuse(format!("it holds more than {} MiB", limit >> 20)).into());
    }
    Ok(Some(unpacked))
}

/// Reads one byte more than the limit, so that the caller can tell contents that are too long.
fn up_to(limit: usize, reader: impl Read) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut unpacked)?;
    Ok(unpacked)
}

fn xz(bytes: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let kilobytes = u32::try_from(WINDOW >> 10).unwrap_or(u32::MAX);
    up_to(limit, lzma_rust2::XzReader::new_mem_limit(bytes, true, kilobytes))
}

/// Compares the checksum, because the decoder only computes it.
fn zstd(mut bytes: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(&mut bytes, WINDOW);
    let mut decoder = decoder.map_err(io::Error::other)?;
    let unpacked = up_to(limit, &mut decoder)?;
    let frame = decoder.into_frame_decoder();
    let stated = frame.get_checksum_from_data();
    if unpacked.len() <= limit && stated.is_some() && stated != frame.get_calculated_checksum() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its checksum is wrong"));
    }
    if unpacked.len() <= limit && !bytes.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "something follows its end"));
    }
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::{any, proptest};
    use proptest::sample::Index;

    use super::*;

    fn contents() -> Vec<u8> {
        (0..200_000u32).flat_map(|n| (n / 7 % 251).to_le_bytes()).collect()
    }

    fn compressed(format: FileCompression, contents: &[u8]) -> Vec<u8> {
        match format {
            FileCompression::Xz => {
                let options = lzma_rust2::XzOptions::with_preset(1);
                let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).expect("a writer");
                writer.write_all(contents).expect("written");
                writer.finish().expect("finished")
            }
            FileCompression::Zstd => {
                ruzstd::encoding::compress_to_vec(contents, ruzstd::encoding::CompressionLevel::Fastest)
            }
            FileCompression::Gzip => {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                writer.write_all(contents).expect("written");
                writer.finish().expect("finished")
            }
        }
    }

    fn read(bytes: &[u8]) -> Result<Option<Vec<u8>>> {
        unpack(Path::new("a.ko.x"), bytes)
    }

    #[test]
    fn each_format_is_told_by_its_first_bytes() {
        let contents = contents();
        for (format, ..) in FORMATS {
            let file = compressed(format, &contents);
            assert_eq!(read(&file).expect("unpacked"), Some(contents.clone()), "{format:?}");
        }
        assert_eq!(read(b"\x7fELF and so on").expect("passed on"), None);
        assert_eq!(read(b"").expect("passed on"), None);
    }

    #[test]
    fn a_truncated_file_is_refused() {
        for (format, ..) in FORMATS {
            let file = compressed(format, &contents());
            for length in [file.len() - 1, file.len() / 2, 12, 8] {
                let failure = read(&file[..length]).expect_err("refused");
                let code = failure.diagnoses().next().expect("one").code;
                assert_eq!(code, "klpx::bad-compression", "{format:?} of {length} bytes");
            }
        }
    }

    #[test]
    fn what_unpacks_to_more_than_the_limit_is_refused() {
        let contents = contents();
        for (format, ..) in FORMATS {
            let file = compressed(format, &contents);
            let unpack = |limit| unpack_up_to(limit, Path::new("a.ko.x"), &file);
            assert!(unpack(contents.len() - 1).is_err(), "{format:?}");
            assert!(unpack(contents.len()).is_ok(), "{format:?}");
        }
    }

    #[test]
    fn a_dictionary_beyond_the_limit_is_refused_before_it_is_allotted() {
        // A zstd frame header with a window of 2 TiB, and an xz block header with a dictionary of 4 GiB - 1.
        let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
        assert!(read(&zstd).is_err());
        let mut xz = compressed(FileCompression::Xz, b"small");
        // Stream header of 12 bytes; block header: size, flags, filter 0x21, one property byte, the dictionary's size.
        assert_eq!(xz[14..16], [0x21, 1], "the block header has the shape that this test changes");
        xz[16] = 40;
        let size = (usize::from(xz[12]) + 1) * 4;
        let mut crc = flate2::Crc::new();
        crc.update(&xz[12..12 + size - 4]);
        xz[12 + size - 4..12 + size].copy_from_slice(&crc.sum().to_le_bytes());
        let failure = read(&xz).expect_err("refused");
        assert!(failure.to_string().contains("mem_limit"), "{failure}");
    }

    #[test]
    fn endings_of_compression_are_no_part_of_a_name() {
        for (name, plain) in
            [("a.ko.xz", "a.ko"), ("a.ko.zst", "a.ko"), ("a.ko.gz", "a.ko"), ("a.ko", "a.ko")]
        {
            assert_eq!(plain_name(name), plain);
        }
    }

    proptest! {
        /// A changed byte anywhere gives the contents, an error, or a file of no known format; never a panic. Different
        /// contents would need a checksum that happens to fit.
        #[test]
        fn damage_is_noticed(n in 0..3usize, at in any::<Index>(), value in any::<u8>()) {
            let contents = &contents()[..2000];
            let mut file = compressed(FORMATS[n].0, contents);
            let place = at.index(file.len());
            file[place] = value;
            if let Ok(Some(unpacked)) = read(&file) {
                assert!(unpacked == contents, "changed at {place} unnoticed");
            }
        }
    }
}
