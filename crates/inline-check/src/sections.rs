//! The debug sections of a file: uncompressed, with their relocations in order of place. All code of this crate that
//! reads DWARF reads it from here.

use std::borrow::Cow;
use std::slice::SliceIndex;

use gimli::{Dwarf, EndianSlice, LittleEndian};
use klpx_diagnosis::{Diagnosis, Result, codes};
use klpx_normalize::elf::{Elf, Rela, SectionId};
use object::elf;
use object::endian::LittleEndian as LE;
use object::read::{CompressedData, CompressionFormat};
use rayon::prelude::*;

use crate::dwarf::{self, Reader};

/// The sections that tell which function inlined which.
const ALL: &[gimli::SectionId] = &[
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

/// The sections that tell the lines of code.
const LINES: &[gimli::SectionId] =
    &[gimli::SectionId::DebugLine, gimli::SectionId::DebugLineStr, gimli::SectionId::DebugStr];

/// Bytes of an `Elf64_Chdr`: type, padding, size, alignment.
const COMPRESSION_HEADER: usize = 24;

/// The place of a string, which is read only on request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum TextPlace {
    /// No place.
    #[default]
    None,
    /// At an offset of `.debug_info`.
    Info(u32),
    /// At an offset of `.debug_line`.
    Line(u32),
    /// At an offset of `.debug_str`.
    Str(u32),
    /// At an offset of `.debug_line_str`.
    LineStr(u32),
}

/// One section.
#[derive(Default)]
struct LoadedSection<'d> {
    bytes: Cow<'d, [u8]>,
    relocations: Cow<'d, [Rela]>,
}

/// The debug sections of a file. A section that the file does not have is empty.
pub struct DebugSections<'d> {
    elf: &'d Elf<'d>,
    wanted: &'static [gimli::SectionId],
    loaded: Vec<LoadedSection<'d>>,
    /// Stands for a section that was not read.
    none: LoadedSection<'d>,
}

impl<'d> DebugSections<'d> {
    /// Finds all sections that are read, and unpacks compressed ones.
    ///
    /// # Errors
    /// `klpx::bad-dwarf`: a compressed section is damaged.
    pub fn read(elf: &'d Elf<'d>) -> Result<DebugSections<'d>> {
        let loaded: Vec<Result<LoadedSection<'d>>> = ALL.par_iter().map(|id| load(elf, id.name())).collect();
        let loaded = loaded.into_iter().collect::<Result<_>>()?;
        Ok(DebugSections { elf, wanted: ALL, loaded, none: LoadedSection::default() })
    }

    /// Reads only the sections of source lines. Nothing depends on them, so a section that can't be unpacked counts as
    /// empty.
    pub fn of_lines(elf: &'d Elf<'d>) -> DebugSections<'d> {
        let loaded = LINES.par_iter().map(|id| load(elf, id.name()).unwrap_or_default()).collect();
        DebugSections { elf, wanted: LINES, loaded, none: LoadedSection::default() }
    }

    /// Returns the file.
    pub(crate) fn elf(&self) -> &'d Elf<'d> {
        self.elf
    }

    /// Refuses a file that has no `.debug_info`.
    pub(crate) fn require_info(&self) -> Result<()> {
        match self.elf.section_by_name(b".debug_info") {
            Some(_) => Ok(()),
            None => Err(no_dwarf(self.elf).into()),
        }
    }

    /// Returns the DWARF of an object, whose addresses are [`dwarf::address`]es.
    pub fn relocated(&self) -> Dwarf<Reader<'_>> {
        self.dwarf(|loaded| dwarf::reader(self.elf, &loaded.bytes, &loaded.relocations))
    }

    /// Returns the DWARF of a linked image.
    pub(crate) fn plain(&self) -> Dwarf<EndianSlice<'_, LittleEndian>> {
        self.dwarf(|loaded| EndianSlice::new(&loaded.bytes, LittleEndian))
    }

    /// Returns the line programs of an object, and the relocations that tell which code they cover.
    pub(crate) fn lines(&self) -> (Reader<'_>, &[Rela]) {
        let loaded = self.loaded(gimli::SectionId::DebugLine).unwrap_or(&self.none);
        (dwarf::reader(self.elf, &loaded.bytes, &loaded.relocations), &loaded.relocations)
    }

    fn dwarf<'s, R: gimli::Reader>(&'s self, reader: impl Fn(&'s LoadedSection<'d>) -> R) -> Dwarf<R> {
        let load = |id| Ok::<_, std::convert::Infallible>(reader(self.loaded(id).unwrap_or(&self.none)));
        let mut dwarf = match Dwarf::load(load) {
            Ok(dwarf) => dwarf,
            Err(never) => match never {},
        };
        // A table that several units share is read only once.
        dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
        dwarf
    }

    fn loaded(&self, id: gimli::SectionId) -> Option<&LoadedSection<'d>> {
        self.loaded.get(self.wanted.iter().position(|&wanted| wanted == id)?)
    }

    /// Gives back the memory of a part of a section that was read: see [`Elf::release`].
    pub(crate) fn release(&self, id: gimli::SectionId, part: impl SliceIndex<[u8], Output = [u8]>) {
        if let Some(bytes) = self.loaded(id).and_then(|loaded| loaded.bytes.get(part)) {
            self.elf.release(bytes);
        }
    }

    /// Returns a string's bytes; empty for a place outside its section.
    pub(crate) fn text(&self, text: TextPlace) -> &[u8] {
        let (section, at) = match text {
            TextPlace::None => return &[],
            TextPlace::Info(at) => (gimli::SectionId::DebugInfo, at),
            TextPlace::Line(at) => (gimli::SectionId::DebugLine, at),
            TextPlace::Str(at) => (gimli::SectionId::DebugStr, at),
            TextPlace::LineStr(at) => (gimli::SectionId::DebugLineStr, at),
        };
        let rest = self.loaded(section).and_then(|loaded| loaded.bytes.get(at as usize..)).unwrap_or(&[]);
        &rest[..rest.iter().position(|&b| b == 0).unwrap_or(rest.len())]
    }
}

fn no_dwarf(elf: &Elf<'_>) -> Diagnosis {
    let old = elf.section_by_name(b".zdebug_info").is_some();
    Diagnosis::new(
        &codes::NO_DWARF,
        "the file has no debug information that klpx can read",
        if old {
            "its debug sections are compressed in the old GNU way (.zdebug_info)"
        } else {
            "it has no .debug_info section"
        },
        if old {
            "let objcopy --decompress-debug-sections unpack a copy"
        } else {
            "build with CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT=y, or take the file from the \
             distribution's debug package"
        },
    )
}

fn load<'d>(elf: &'d Elf<'d>, name: &str) -> Result<LoadedSection<'d>> {
    let Some(id) = elf.section_by_name(name.as_bytes()) else { return Ok(LoadedSection::default()) };
    let bytes = uncompressed(elf, id).map_err(|why| {
        Diagnosis::new(
            &codes::BAD_DWARF,
            format!("{name} can't be unpacked"),
            why,
            "build the file again; if it came from a package, check its integrity",
        )
    })?;
    let mut relocations = Cow::Borrowed(elf.relocations(id));
    if !relocations.is_sorted_by_key(|rela| rela.r_offset.get(LE)) {
        relocations.to_mut().sort_by_key(|rela| rela.r_offset.get(LE));
    }
    Ok(LoadedSection { bytes, relocations })
}

/// The most bytes that a byte of a compressed section can stand for: deflate's limit. Debug information reaches a
/// fiftieth.
const RATIO: u64 = 1032;

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
    let uncompressed_size = number(8, 8);
    if uncompressed_size > data.len() as u64 * RATIO {
        return Err(format!("it claims {uncompressed_size} bytes, more than its {} can hold", data.len()));
    }
    CompressedData { format, data, uncompressed_size }.decompress().map_err(|e| e.to_string())
}
