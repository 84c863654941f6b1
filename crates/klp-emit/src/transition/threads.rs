//! Finds the main functions of kernel threads by the calls that make the threads: the arguments of such calls are
//! almost always constants.

use std::collections::{BTreeMap, BTreeSet};

use klpx_normalize::elf::{Definition, SectionId};
use object::elf;
use object::endian::LittleEndian as LE;

use super::facts::{CREATORS, Creator};
use super::walk;
use crate::arch::{Effect, argument, may_branch_to, survives_calls};
use crate::image::{Image, Location};

/// The addresses of all main functions of an object's kernel threads, with the names of the threads.
pub(super) fn main_functions(image: &Image<'_>) -> BTreeMap<u64, BTreeSet<String>> {
    let mut found: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    let holders: BTreeSet<(u64, u64)> =
        sites(image).into_iter().filter_map(|site| image.function_at(site)).collect();
    for (start, end) in holders {
        let mut registers = RegisterValues::default();
        walk(image, start, end, &mut |effect| {
            if let Effect::Call(Some(to)) | Effect::Leave(Some(to)) = effect
                && let Some(creator) = creator(image, to)
                && let Some(main) = registers.argument(image, 0).filter(|&main| is_code(image, main))
            {
                let names = found.entry(main).or_default();
                names.extend(creator.format.and_then(|format| thread_name(image, &registers, format)));
            }
            registers.apply(image, effect);
        });
    }
    found
}

/// The addresses of instructions that may call a creator.
fn sites(image: &Image<'_>) -> Vec<u64> {
    let code = |&id: &SectionId| {
        let loaded_code = elf::SHF_ALLOC.0 | elf::SHF_EXECINSTR.0;
        image.elf.section_flags(id) & loaded_code == loaded_code
    };
    let sections = image.elf.section_ids().filter(code);
    if image.is_linked() {
        let address = |creator: &Creator| {
            image.global(creator.name.as_bytes()).or_else(|| image.named(creator.name.as_bytes()).next())
        };
        let targets: Vec<u64> =
            CREATORS.iter().filter_map(address).filter_map(|id| image.address(id)).collect();
        let calls =
            |id| may_branch_to(image.arch, image.elf.section_bytes(id), image.section_address(id), &targets);
        return sections.flat_map(calls).collect();
    }
    let calls = |id| {
        let relocations = image.elf.relocations(id).iter();
        let to_creator = relocations.filter(|rela| {
            let Some(symbol) = image.elf.rela_symbol(rela) else { return false };
            let name = image.elf.symbol_name(symbol);
            image.elf.definition(symbol) == Definition::Undefined
                && CREATORS.iter().any(|creator| creator.name.as_bytes() == name)
        });
        to_creator.map(move |rela| image.section_address(id).wrapping_add(rela.r_offset.get(LE)))
    };
    sections.flat_map(calls).collect()
}

fn creator(image: &Image<'_>, to: Location) -> Option<&'static Creator> {
    let names = super::names(image, to);
    CREATORS.iter().find(|creator| names.contains(&creator.name.as_bytes()))
}

fn is_code(image: &Image<'_>, address: u64) -> bool {
    image.function_at(address).is_some_and(|(start, _)| start == address)
}

/// A thread's name, as far as the call tells. A format string stays unexpanded.
fn thread_name(image: &Image<'_>, registers: &RegisterValues, format: usize) -> Option<String> {
    let text = |n| registers.argument(image, n).and_then(|address| string(image, address));
    match text(format)? {
        whole if whole == "%s" => text(format + 1),
        name => tells_something(&name).then_some(name),
    }
}

/// Returns true for a format with a letter outside its conversions (include/linux/kthread.h passes it to vsnprintf).
fn tells_something(format: &str) -> bool {
    let mut rest = format.chars();
    while let Some(letter) = rest.next() {
        match letter {
            '%' => {
                rest.find(char::is_ascii_alphabetic);
            }
            letter if letter.is_ascii_alphabetic() => return true,
            _ => {}
        }
    }
    false
}

/// The printable text at an address.
fn string(image: &Image<'_>, address: u64) -> Option<String> {
    /// Longer than any thread's name (TASK_COMM_LEN, include/linux/sched.h).
    const LONGEST: usize = 64;
    let bytes = image.bytes_from(address)?;
    let length = bytes.iter().take(LONGEST).position(|&byte| byte == 0).filter(|&length| length > 0)?;
    let text = bytes.get(..length)?;
    let printable = text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    printable.then(|| String::from_utf8_lossy(text).into_owned())
}

/// The constants in registers on a straight path through a function.
#[derive(Default)]
struct RegisterValues([Option<u64>; 32]);

impl RegisterValues {
    fn get(&self, register: u8) -> Option<u64> {
        self.0.get(usize::from(register)).copied().flatten()
    }

    fn argument(&self, image: &Image<'_>, n: usize) -> Option<u64> {
        self.get(argument(image.arch, n)?)
    }

    fn set(&mut self, register: u8, value: Option<u64>) {
        if let Some(slot) = self.0.get_mut(usize::from(register)) {
            *slot = value;
        }
    }

    fn apply(&mut self, image: &Image<'_>, effect: Effect) {
        match effect {
            Effect::Set(register, value) => self.set(register, Some(value)),
            Effect::Add(to, from, more) => {
                self.set(to, self.get(from).map(|value| value.wrapping_add(more)));
            }
            Effect::Lose(register) => self.set(register, None),
            Effect::Call(_) => {
                for (register, slot) in (0..).zip(&mut self.0) {
                    if !survives_calls(image.arch, register) {
                        *slot = None;
                    }
                }
            }
            Effect::Leave(_) => *self = RegisterValues::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_of_conversions_alone_names_no_thread() {
        for format in ["kswapd%d", "%s_reclaim", "jbd2/%s", "%.8s-x", "k"] {
            assert!(tells_something(format), "{format}");
        }
        for format in ["%s_%s", "%s", "%.*s-%d", "", "%", "%-"] {
            assert!(!tells_something(format), "{format}");
        }
    }
}
