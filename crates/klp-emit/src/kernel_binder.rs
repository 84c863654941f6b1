//! Binds names for the emitter in the kernel to be patched, by the bindings of each object, the exports and the images.
//!
//! Does no matching itself; see `bind`.

use std::collections::BTreeMap;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes};
use klpx_normalize::elf::SymbolId;
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::name::{PROMOTED, promotion, without_promotion};
use klpx_normalize::object::Object;
use object::elf;

use crate::bind::Binding;
use crate::image::{Image, TargetKernel, VMLINUX};
use crate::plan::{Binder, Bound, ExportedSymbol};

/// A [`Binder`] that uses the kernel's own files.
pub struct KernelBinder<'a> {
    kernel: &'a TargetKernel,
    vmlinux: &'a Image<'a>,
    images: BTreeMap<&'a str, &'a Image<'a>>,
    bindings: &'a [Binding<'a>],
}

impl<'a> KernelBinder<'a> {
    /// A binder for the bindings of all units to be patched; `vmlinux` is needed even if only modules are patched.
    pub fn new(
        kernel: &'a TargetKernel,
        vmlinux: &'a Image<'a>,
        bindings: &'a [Binding<'a>],
    ) -> KernelBinder<'a> {
        let images = bindings.iter().map(Binding::image).chain([vmlinux]);
        let images = images.map(|image| (image.object(), image)).collect();
        KernelBinder { kernel, vmlinux, images, bindings }
    }

    /// The binding of a unit, found by the unit's original build.
    fn of_unit(&self, original: &Object<'_>) -> Option<&'a Binding<'a>> {
        let same = |binding: &&Binding<'a>| std::ptr::addr_eq(binding.witness(), original);
        self.bindings.iter().find(same)
    }

    /// The kernel's symbol for a promoted name of klpx's build, which has another hash in the kernel: found by a unit
    /// that binds the name, or else by another name with the same hash.
    fn promoted(&self, object: &str, name: &str) -> Option<Result<Bound, Diagnosis>> {
        let hash = promotion(name.as_bytes())?;
        let of_object = || self.bindings.iter().filter(|binding| binding.image().object() == object);
        let by_name = of_object().find_map(|binding| {
            let symbol = binding.named(name.as_bytes())?;
            binding.counterpart(symbol).map(|(found, _)| bound(binding.image(), found))
        });
        by_name.or_else(|| {
            let other = of_object().find_map(|binding| binding.hash_in_image(hash))?;
            let name = [without_promotion(name.as_bytes()), PROMOTED, other].concat();
            let image = self.images.get(object)?;
            image.named(&name).next().map(|found| bound(image, found))
        })
    }
}

fn first(failure: Failure) -> Diagnosis {
    let found = failure.diagnoses().next().cloned();
    found.unwrap_or_else(|| {
        Diagnosis::new(
            &codes::INTERNAL,
            "a failure without a diagnosis",
            "a failure must have a diagnosis",
            klpx_diagnosis::REPORT,
        )
    })
}

fn missing(name: &str, object: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::NOT_IN_KERNEL,
        "the kernel to be patched has no such symbol",
        format!("{object} does not define it"),
        "give klpx the source, configuration and compiler that the kernel was built with",
    )
    .place(DiagnosisPlace::symbol(name))
}

fn position(image: &Image<'_>, name: &str) -> Result<Bound, Diagnosis> {
    bound(image, image.global(name.as_bytes()).ok_or_else(|| missing(name, image.object()))?)
}

fn bound(image: &Image<'_>, symbol: SymbolId) -> Result<Bound, Diagnosis> {
    let position = image.position(symbol).map_err(first)?;
    Ok(Bound { name: position.name, sympos: position.sympos })
}

impl Binder for KernelBinder<'_> {
    fn bind(&self, original: &Object<'_>, symbol: SymbolId) -> Result<Bound, Diagnosis> {
        let name = || String::from_utf8_lossy(original.elf.symbol_name(symbol)).into_owned();
        let binding = self.of_unit(original).ok_or_else(|| missing(&name(), original.name()))?;
        let item = original.symbol_item(symbol).filter(|&item| original.item(item).symbol == symbol);
        let found = match item {
            Some(item) => binding.item(item)?,
            None => binding.symbol(symbol)?,
        };
        Ok(Bound { name: found.name, sympos: found.sympos })
    }

    fn bind_finished(&self, object: &str, name: &str) -> Result<Bound, Diagnosis> {
        if let Some(found) = self.promoted(object, name) {
            return found;
        }
        let image = self.images.get(object).ok_or_else(|| missing(name, object))?;
        position(image, name)
    }

    fn defines(&self, object: &str, name: &str) -> bool {
        let is_kept = |image: &Image<'_>, id: SymbolId| {
            let section = image.elf.symbol_section(id);
            image.address(id).is_some()
                && section.is_none_or(|at| Lifetime::of(image.elf.section_name(at)) != Lifetime::Boot)
        };
        let image = self.images.get(object);
        image.is_some_and(|image| image.global(name.as_bytes()).is_some_and(|id| is_kept(image, id)))
            || self.promoted(object, name).is_some()
    }

    fn refuses_indirect_calls(&self, object: &str, function: &Bound) -> bool {
        let Some(image) = self.images.get(object).filter(|_| self.vmlinux.seals_functions()) else {
            return false;
        };
        image.placed(&function.name, function.sympos).is_some_and(|address| image.is_sealed(address))
    }

    fn bind_export(&self, module: &str, name: &str) -> Result<Bound, Diagnosis> {
        position(&self.kernel.image(module).map_err(first)?, name)
    }

    fn runtime_constant(&self, name: &str) -> Option<(Bound, i64)> {
        let image = self.vmlinux;
        let holder = |site: u64| {
            image.elf.symbol_ids().find(|&id| {
                let start = image.elf.symbol_value(id);
                image.elf.symbol_type(id) == elf::STT_FUNC.0
                    && (start..start.saturating_add(image.elf.symbol_size(id))).contains(&site)
            })
        };
        image.runtime_sites(name).into_iter().find_map(|site| {
            let symbol = holder(site)?;
            let section = image.elf.symbol_section(symbol)?;
            if Lifetime::of(image.elf.section_name(section)) == Lifetime::Boot {
                return None;
            }
            let position = image.position(symbol).ok()?;
            let offset = site.wrapping_sub(image.elf.symbol_value(symbol)) as i64;
            Some((Bound { name: position.name, sympos: position.sympos }, offset))
        })
    }

    fn export(&self, name: &str) -> Option<ExportedSymbol> {
        let export = self.kernel.exports().get(name)?;
        Some(ExportedSymbol {
            module: (export.object != VMLINUX).then(|| export.object.clone()),
            gpl: export.gpl,
            namespace: (!export.namespace.is_empty()).then(|| export.namespace.clone()),
        })
    }
}

#[cfg(test)]
mod tests;
