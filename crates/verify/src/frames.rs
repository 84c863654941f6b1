//! Checks frames by which a kernel patches code (arm64, CONFIG_UNWIND_PATCH_PAC_INTO_SCS). If a replaced function has a
//! frame in the patched build, its copy must have the same frame.

use std::collections::BTreeSet;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, codes};
use klpx_normalize::elf::SectionId;
use klpx_normalize::frames::{Frame, frames};

use crate::fault;
use crate::file::{Body, IndexedFile};
use crate::graph::Node;
use crate::pair::BuildPair;

/// The name that a module's linker script gives the frame table where the kernel reads the table (scripts/module.lds).
const READ_BY_KERNEL: &[u8] = b".init.eh_frame";

/// Returns a finding for each missing frame. `seen` tells the places of the copies.
pub(crate) fn check(
    copy: &IndexedFile<'_, '_>,
    pairs: &[BuildPair<'_, '_>],
    replaced: &[BTreeSet<Body>],
    seen: &BTreeSet<Node>,
) -> Vec<Diagnosis> {
    let Some(table) = copy.elf.section_by_name(READ_BY_KERNEL) else { return Vec::new() };
    let copied = frames(copy.elf, table);
    let mut copies: Vec<((SectionId, u64), &Frame<'_>)> =
        copied.iter().filter_map(|frame| Some((copy.place(frame.code)?, frame))).collect();
    copies.sort_by_key(|(place, _)| *place);
    let mut faults = Vec::new();
    for (n, pair) in pairs.iter().enumerate() {
        let patched = &pair.patched;
        let table = patched.arch.frame_table().and_then(|name| patched.elf.section_by_name(name));
        let Some(table) = table else { continue };
        for frame in frames(patched.elf, table) {
            let Some((section, at)) = patched.place(frame.code) else { continue };
            let holder = replaced[n]
                .iter()
                .find(|body| body.section == section && (body.entry..body.end).contains(&at));
            let Some(body) = holder else { continue };
            let has_frame = |node: &Node| {
                let place = (node.section, node.at + (at - body.entry));
                let found = copies.binary_search_by_key(&place, |(place, _)| *place);
                found.is_ok_and(|n| alike(&frame, copies[n].1))
            };
            let mut nodes = seen.iter().filter(|node| node.unit == n && node.body == *body);
            if !nodes.all(has_frame) {
                let why = "the kernel finds by it where the function signs its return address";
                let place = DiagnosisPlace::symbol(pair.name(*body));
                faults.push(fault(&codes::VERIFY_FRAME, "a function without its frame", why).place(place));
            }
        }
    }
    faults
}

/// Returns true if two frames are the same except for lengths, the distance to the common information, the code's
/// address, and no-operations at the end.
fn alike(one: &Frame<'_>, other: &Frame<'_>) -> bool {
    fn rest(bytes: &[u8], from: usize) -> &[u8] {
        let bytes = bytes.get(from..).unwrap_or(&[]);
        let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |n| n + 1);
        &bytes[..end]
    }
    rest(one.common, 4) == rest(other.common, 4) && rest(one.bytes, 12) == rest(other.bytes, 12)
}
