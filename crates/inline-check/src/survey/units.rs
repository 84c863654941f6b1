//! Chooses the units of a file that are read, and their order.
//!
//! A whole file is read in shares of some units each, and the memory of each share is given back: `.debug_info` of a
//! distribution's vmlinux has 200 MB.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use gimli::{AttributeValue, DebugInfoUnitHeadersIter, Dwarf, Reader, SectionId, UnitHeader};
use rayon::prelude::*;

use super::WantedParts;
use super::scan::{Trouble, scan};
use super::scanned::ScannedUnit;
use crate::sections::DebugSections;

/// Bytes of `.debug_info` in a share.
const SHARE: usize = 2 << 20;

/// Reads every unit, or only the units with one of the wanted line programs and the units that these refer to.
pub(super) fn read<R: Reader<Offset = usize> + Send + Sync>(
    dwarf: &Dwarf<R>,
    sections: &DebugSections<'_>,
    wanted: &WantedParts<'_>,
) -> Result<Vec<ScannedUnit>, Trouble> {
    match &wanted.programs {
        Some(programs) => some(dwarf, programs, wanted.sizes),
        None => all(dwarf, sections, wanted.sizes),
    }
}

fn all<R: Reader<Offset = usize> + Send + Sync>(
    dwarf: &Dwarf<R>,
    sections: &DebugSections<'_>,
    sizes: bool,
) -> Result<Vec<ScannedUnit>, Trouble> {
    let shares = Shares(Headers::new(dwarf)).enumerate().par_bridge();
    let facts =
        shares.map(|(n, share)| (n, share.and_then(|share| read_share(dwarf, sections, share, sizes))));
    let mut facts: Vec<(usize, Result<Vec<ScannedUnit>, Trouble>)> = facts.collect();
    facts.sort_unstable_by_key(|&(n, _)| n);
    for section in [SectionId::DebugAbbrev, SectionId::DebugLine] {
        sections.release(section, ..);
    }
    let mut all = Vec::new();
    for (_, facts) in facts {
        all.append(&mut facts?);
    }
    Ok(all)
}

fn read_share<R: Reader<Offset = usize>>(
    dwarf: &Dwarf<R>,
    sections: &DebugSections<'_>,
    share: Vec<UnitHeader<R>>,
    sizes: bool,
) -> Result<Vec<ScannedUnit>, Trouble> {
    let start = share.first().map_or(0, start);
    let end = share.last().map_or(0, end);
    let facts = share.into_iter().filter_map(|header| scan(dwarf, header, sizes).transpose()).collect();
    sections.release(SectionId::DebugInfo, start..end);
    facts
}

fn some<R: Reader<Offset = usize> + Send + Sync>(
    dwarf: &Dwarf<R>,
    programs: &HashSet<usize>,
    sizes: bool,
) -> Result<Vec<ScannedUnit>, Trouble> {
    let headers: Vec<UnitHeader<R>> = Headers::new(dwarf).collect::<Result<_, _>>()?;
    let has_program =
        |header: &UnitHeader<R>| line_program(dwarf, header).is_some_and(|at| programs.contains(&at));
    let starts: Vec<usize> = headers.iter().map(start).collect();
    let mut todo: BTreeSet<usize> =
        headers.par_iter().enumerate().filter(|(_, header)| has_program(header)).map(|(n, _)| n).collect();
    let mut read: BTreeMap<usize, Option<ScannedUnit>> = BTreeMap::new();
    while !todo.is_empty() {
        let round: Vec<usize> = std::mem::take(&mut todo).into_iter().collect();
        let scanned: Vec<_> = round.par_iter().map(|&n| scan(dwarf, headers[n].clone(), sizes)).collect();
        for (n, facts) in round.into_iter().zip(scanned) {
            read.insert(n, facts?);
        }
        let others = read.values().flatten().flat_map(ScannedUnit::refers_to);
        let unit = |at: u32| starts.partition_point(|&start| start <= at as usize).checked_sub(1);
        todo.extend(others.filter_map(unit).filter(|n| !read.contains_key(n)));
    }
    Ok(read.into_values().flatten().collect())
}

/// The headers of all units, up to the first broken header.
struct Headers<R: Reader> {
    iterator: DebugInfoUnitHeadersIter<R>,
    /// The end of the last header's unit.
    end: usize,
}

impl<R: Reader<Offset = usize>> Headers<R> {
    fn new(dwarf: &Dwarf<R>) -> Headers<R> {
        Headers { iterator: dwarf.units(), end: 0 }
    }
}

impl<R: Reader<Offset = usize>> Iterator for Headers<R> {
    type Item = Result<UnitHeader<R>, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.iterator.next().map_err(|error| Trouble::Broken(error, self.end)).transpose()?;
        if let Ok(header) = &header {
            self.end = end(header);
        }
        Some(header)
    }
}

/// An iterator over the headers of some units at a time.
struct Shares<R: Reader>(Headers<R>);

impl<R: Reader<Offset = usize>> Iterator for Shares<R> {
    type Item = Result<Vec<UnitHeader<R>>, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut share, mut bytes) = (Vec::new(), 0);
        while bytes < SHARE
            && let Some(header) = self.0.next()
        {
            match header {
                Ok(header) => {
                    bytes += header.length_including_self();
                    share.push(header);
                }
                Err(trouble) => return Some(Err(trouble)),
            }
        }
        (!share.is_empty()).then_some(Ok(share))
    }
}

/// Returns the start of a unit in `.debug_info`.
fn start<R: Reader<Offset = usize>>(header: &UnitHeader<R>) -> usize {
    header.debug_info_offset().map_or(0, |offset| offset.0)
}

fn end<R: Reader<Offset = usize>>(header: &UnitHeader<R>) -> usize {
    start(header) + header.length_including_self()
}

/// Returns the place of a unit's line program in `.debug_line`.
fn line_program<R: Reader<Offset = usize>>(dwarf: &Dwarf<R>, header: &UnitHeader<R>) -> Option<usize> {
    let abbreviations = dwarf.abbreviations(header).ok()?;
    let mut entries = header.entries(&abbreviations);
    match entries.next_dfs().ok()??.attr_value(gimli::DW_AT_stmt_list)? {
        AttributeValue::DebugLineRef(at) => Some(at.0),
        _ => None,
    }
}
