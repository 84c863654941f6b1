//! Finds functions that keep a livepatch's transition waiting.
//!
//! A task is switched to the livepatch when no replaced function is on its stack (kernel/livepatch/transition.c,
//! klp_check_stack). A kernel thread has its main function on its stack as long as it lives; other tasks wait in a
//! function until something wakes them. The code of the kernel to be patched shows both. Calls through pointers are not
//! followed, and tasks may also sleep in a function that is not reported here: through another function, or waiting for
//! a lock.
//!
//! Owns the search for these functions. Never decides what is replaced.

mod facts;
#[cfg(test)]
mod tests;
mod threads;

use std::collections::{BTreeMap, BTreeSet};

use klpx_normalize::elf::SymbolId;
use klpx_normalize::name::canonical;
use object::endian::LittleEndian as LE;

use crate::arch::{Effect, effects};
use crate::image::{Image, Location};
use crate::plan::Plan;

/// A replaced function in which tasks stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stay {
    /// `vmlinux` or the module's name.
    pub object: String,
    /// The function's name in the kernel.
    pub function: String,
    /// Why tasks stay in the function.
    pub why: Why,
}

/// Why tasks stay in a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The function is the main function of kernel threads.
    Main {
        /// The names of the threads, as the kernel's format strings; empty if unknown.
        threads: Vec<String>,
    },
    /// The function is on the stack of tasks that exist on most machines at any time.
    OnPath {
        /// What these tasks do, such as `wait in poll or select`.
        doing: &'static str,
    },
    /// The function waits for an event that may never come.
    Waits {
        /// The waiting functions that it calls.
        calls: Vec<&'static str>,
        /// True if it also calls a function that is only for kernel threads.
        in_thread: bool,
    },
}

/// The replaced functions in which tasks stay, in the order of the plan. `images` are those of the patched objects;
/// objects without an image are left out.
pub fn stays(plan: &Plan, images: &[&Image<'_>]) -> Vec<Stay> {
    let mut found = Vec::new();
    for object in plan.objects.iter().filter(|object| !object.functions.is_empty()) {
        let Some(image) = images.iter().find(|image| image.object() == object.name) else { continue };
        let mains = threads::main_functions(image);
        for function in &object.functions {
            let Some(entry) = image.placed(&function.old.name, function.old.sympos) else { continue };
            if let Some(why) = why(image, &function.old.name, entry, &mains) {
                let function = function.old.name.clone();
                found.push(Stay { object: object.name.clone(), function, why });
            }
        }
    }
    found
}

/// Why tasks stay in the function of this name that begins at `entry`.
fn why(image: &Image<'_>, name: &str, entry: u64, mains: &BTreeMap<u64, BTreeSet<String>>) -> Option<Why> {
    if let Some(threads) = mains.get(&entry) {
        return Some(Why::Main { threads: threads.iter().cloned().collect() });
    }
    let file = image.at(entry).find_map(|id| image.locals().file_of(id)).map(String::from_utf8_lossy);
    let name = String::from_utf8_lossy(canonical(name.as_bytes()).base);
    if let Some(path) = facts::on_path(&name, file.as_deref()) {
        return Some(Why::OnPath { doing: path.doing });
    }
    if facts::YIELDS.contains(&&*name) {
        return None;
    }
    let (start, end) = image.function_at(entry)?;
    let mut called: BTreeSet<&[u8]> = BTreeSet::new();
    // A function that jumps to another one is not on the stack while the other one waits.
    walk(image, start, end, &mut |effect| {
        if let Effect::Call(Some(to)) = effect {
            called.extend(names(image, to));
        }
    });
    let is_called = |name: &&str| called.contains(name.as_bytes());
    let calls: Vec<&'static str> = facts::WAITS.into_iter().filter(is_called).collect();
    let in_thread = facts::OF_THREADS.iter().any(is_called);
    (!calls.is_empty()).then_some(Why::Waits { calls, in_thread })
}

/// Reports the effect of each instruction between two addresses of a function.
fn walk(image: &Image<'_>, start: u64, end: u64, tell: &mut dyn FnMut(Effect)) {
    let (Some(bytes), Some(section)) = (image.bytes_from(start), image.section_of(start)) else { return };
    let length = end.saturating_sub(start);
    let code = usize::try_from(length).ok().and_then(|length| bytes.get(..length)).unwrap_or(bytes);
    let (relocations, base) = (image.relocations(start, length), image.section_address(section));
    let place = |n: usize| relocations.get(n).map(|rela| base.wrapping_add(rela.r_offset.get(LE)));
    let relocated = |from: u64, to: u64| {
        let n = relocations.partition_point(|rela| base.wrapping_add(rela.r_offset.get(LE)) < from);
        let place = place(n).filter(|&place| place < to)?;
        Some((place, image.target(relocations.get(n)?)?))
    };
    effects(image.arch, code, start, &relocated, tell);
}

/// The names of a call's target, without the compiler's suffixes.
fn names<'k>(image: &Image<'k>, to: Location) -> Vec<&'k [u8]> {
    let name = |id: SymbolId| canonical(image.elf.symbol_name(id)).base;
    match to {
        Location::At(address) => image.at(address).map(name).collect(),
        Location::Undefined(symbol, 0) => vec![name(symbol)],
        Location::Undefined(..) => Vec::new(),
    }
}
