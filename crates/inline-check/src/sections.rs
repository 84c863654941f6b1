//! The debug sections of a file as its DWARF is read: uncompressed, with their relocations in order of place.

use std::borrow::Cow;

use gimli::{Dwarf, EndianSlice, LittleEndian};
use klpx_diagnosis::{Class, Diagnosis, Result};
use klpx_normalize::elf::{Elf, Rela, SectionId};
use object::elf;
use object::endian::LittleEndian as LE;
use object::read::{CompressedData, CompressionFormat};
use rayon::prelude::*;

use super::scan::Text;
use crate::dwarf::{self, Reader};

/// What the survey reads.
const WANTED: [gimli::SectionId; 9] = [
    gimli::SectionId::DebugAbbrev,
    gimli::SectionId::DebugAddr,
    gimli::SectionId::DebugInfo,
    gimli::SectionId::DebugLine,
    gimli::SectionId::DebugLineStr,
    gimli::SectionId::DebugRanges,
    gimli::SectionId::DebugRngLists,
    gimli::SectionId::DebugStr,
    gimli::SectionId::DebugStrOffsets,
];

/// Bytes of an `Elf64_Chdr`: type, padding, size, alignment.
const COMPRESSION_HEADER: usize = 24;

/// One section.
#[derive(Default)]
struct Loaded<'d> {
    bytes: Cow<'d, [u8]>,
    relocations: Cow<'d, [Rela]>,
}

/// The debug sections of a file.
pub(super) struct Sections<'d> {
    elf: &'d Elf<'d>,
    loaded: Vec<Loaded<'d>>,
    /// Stands for a section that is not read.
    none: Loaded<'d>,
}

impl<'d> Sections<'d> {
    /// Finds the sections, and unpacks those that are compressed.
    pub(super) fn read(elf: &'d Elf<'d>) -> Result<Sections<'d>> {
        if elf.section_by_name(b".debug_info").is_none() {
            return Err(no_dwarf(elf).into());
        }
        let loaded: Vec<Result<Loaded<'d>>> = WANTED.par_iter().map(|id| load(elf, id.name())).collect();
        Ok(Sections { elf, loaded: loaded.into_iter().collect::<Result<_>>()?, none: Loaded::default() })
    }

    /// The DWARF of an object, whose addresses are [`dwarf::address`]es.
    pub(super) fn relocated(&self) -> Dwarf<Reader<'_>> {
        self.dwarf(|loaded| dwarf::reader(self.elf, &loaded.bytes, &loaded.relocations))
    }

    /// The DWARF of a linked image.
    pub(super) fn plain(&self) -> Dwarf<EndianSlice<'_, LittleEndian>> {
        self.dwarf(|loaded| EndianSlice::new(&loaded.bytes, LittleEndian))
    }

    fn dwarf<'s, R: gimli::Reader>(&'s self, reader: impl Fn(&'s Loaded<'d>) -> R) -> Dwarf<R> {
        let load = |id| Ok::<_, std::convert::Infallible>(reader(self.loaded(id).unwrap_or(&self.none)));
        match Dwarf::load(load) {
            Ok(dwarf) => dwarf,
            Err(never) => match never {},
        }
    }

    fn loaded(&self, id: gimli::SectionId) -> Option<&Loaded<'d>> {
        self.loaded.get(WANTED.iter().position(|&wanted| wanted == id)?)
    }

    /// A string's bytes; empty for a place outside its section.
    pub(super) fn text(&self, text: Text) -> &[u8] {
        let (section, at) = match text {
            Text::None => return &[],
            Text::Info(at) => (gimli::SectionId::DebugInfo, at),
            Text::Str(at) => (gimli::SectionId::DebugStr, at),
            Text::LineStr(at) => (gimli::SectionId::DebugLineStr, at),
        };
        let rest = self.loaded(section).and_then(|loaded| loaded.bytes.get(at as usize..)).unwrap_or(&[]);
        &rest[..rest.iter().position(|&b| b == 0).unwrap_or(rest.len())]
    }
}

fn no_dwarf(elf: &Elf<'_>) -> Diagnosis {
    let old = elf.section_by_name(b".zdebug_info").is_some();
    Diagnosis::new("klpx::no-dwarf", Class::Input, "the file has no debug information that klpx can read")
        .why(if old {
            "its debug sections are compressed in the old GNU way (.zdebug_info)"
        } else {
            "it has no .debug_info section"
        })
        .remedy(if old {
            "let objcopy --decompress-debug-sections unpack a copy"
        } else {
            "build with CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT=y, or take the file from the distribution's debug package"
        })
}

fn load<'d>(elf: &'d Elf<'d>, name: &str) -> Result<Loaded<'d>> {
    let Some(id) = elf.section_by_name(name.as_bytes()) else { return Ok(Loaded::default()) };
    let bytes = uncompressed(elf, id).map_err(|why| {
        Diagnosis::new("klpx::bad-dwarf", Class::Input, format!("{name} can't be unpacked"))
            .why(why)
            .remedy("build the file again; if it came from a package, check its integrity")
    })?;
    let mut relocations = Cow::Borrowed(elf.relocations(id));
    if !relocations.is_sorted_by_key(|rela| rela.r_offset.get(LE)) {
        relocations.to_mut().sort_by_key(|rela| rela.r_offset.get(LE));
    }
    Ok(Loaded { bytes, relocations })
}

fn uncompressed<'d>(elf: &'d Elf<'d>, id: SectionId) -> Result<Cow<'d, [u8]>, String> {
    let bytes = elf.section_bytes(id);
    if elf.section_flags(id) & elf::SHF_COMPRESSED.0 == 0 {
        return Ok(Cow::Borrowed(bytes));
    }
    let (header, data) = bytes.split_at_checked(COMPRESSION_HEADER).ok_or("it is too short")?;
    let number = |at: usize, length: usize| {
        header[at..at + length].iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))
    };
    let format = match number(0, 4) {
        1 => CompressionFormat::Zlib,
        2 => CompressionFormat::Zstandard,
        other => return Err(format!("it is compressed in an unknown way ({other})")),
    };
    CompressedData { format, data, uncompressed_size: number(8, 8) }.decompress().map_err(|e| e.to_string())
}
