//! A livepatch from pairs of units, in the two steps between which kbuild compiles the glue. For development only.
//!
//! `livepatch plan OUT KERNEL.. -- OBJECT ORIGINAL.o PATCHED.o ..` writes the glue and the closure;
//! `livepatch finish LINKED.ko MODULE.ko KERNEL.. -- OBJECT ORIGINAL.o PATCHED.o ..` makes and checks the module.
//! `KERNEL` is `VMLINUX SYMVERS MODULES COPIES`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use klpx_diagnosis::{Diagnosis, Failure, Result};
use klpx_klp_emit::bind::Binding;
use klpx_klp_emit::image::{Image, Kernel, VMLINUX};
use klpx_klp_emit::kernel_binder::KernelBinder;
use klpx_klp_emit::plan::Unit;
use klpx_klp_emit::verify::{KernelFiles, verify};
use klpx_klp_emit::witness::Witness;
use klpx_klp_emit::{closure, emit, finish, glue};
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::Object;

fn main() {
    if let Err(failure) = run() {
        for diagnosis in failure.diagnoses() {
            println!("{} {diagnosis}\n    {}", diagnosis.code, diagnosis.remedy);
            diagnosis.detail.iter().for_each(|line| println!("    {line}"));
        }
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let split = arguments.iter().position(|argument| argument == "--").expect("-- before the units");
    let (before, units) = (&arguments[..split], &arguments[split + 1..]);
    let kernel_at = if before[0] == "plan" { 2 } else { 3 };
    let path = |n: usize| PathBuf::from(&before[n]);
    let start = Instant::now();
    let lap = |what: &str| println!("{:8.1} ms {what}", start.elapsed().as_secs_f64() * 1e3);

    let kernel = Kernel::open(&path(kernel_at), &path(kernel_at + 1), &[path(kernel_at + 2)])?
        .with_debug_modules(&[path(kernel_at + 3)]);
    lap("kernel opened");
    let vmlinux = kernel.image(VMLINUX)?;
    lap("vmlinux read");
    let open = |n: usize| -> Result<Vec<ElfFile>> {
        units.chunks(3).map(|unit| ElfFile::open(Path::new(&unit[n]))).collect()
    };
    let (originals, patched) = (open(1)?, open(2)?);
    let read = |files: &'static [ElfFile]| -> Result<Vec<Object<'static>>> {
        files.iter().map(Object::read).collect()
    };
    let originals = read(Box::leak(originals.into_boxed_slice()))?;
    let patched = read(Box::leak(patched.into_boxed_slice()))?;
    lap("units read");
    let differences: Vec<_> = originals.iter().zip(&patched).map(|(a, b)| klpx_diff::compare(a, b)).collect();
    lap("compared");
    let names: Vec<&str> = units.chunks(3).map(|unit| unit[0].as_str()).collect();
    let mut modules: Vec<Image<'_>> = Vec::new();
    for &name in names.iter().filter(|&&name| name != VMLINUX) {
        if !modules.iter().any(|image| image.object() == name) {
            modules.push(kernel.image(name)?);
        }
    }
    let image_of = |name: &str| modules.iter().find(|image| image.object() == name).unwrap_or(&vmlinux);
    let pairs: Vec<Unit<'_, '_>> = (0..names.len())
        .map(|n| Unit {
            object_name: names[n],
            original: &originals[n],
            patched: &patched[n],
            difference: &differences[n],
            edited: None,
            inlines: None,
            overridden: None,
        })
        .collect();
    let closure = closure::select(&pairs, &Default::default())?;
    lap("closure");
    let bindings: Vec<Binding<'_>> =
        pairs.iter().map(|unit| Binding::new(unit.original, image_of(unit.object_name))).collect();
    lap("bound");
    let mut faults: Vec<Diagnosis> = Vec::new();
    for binding in &bindings {
        faults.extend(Witness::new(binding).check_unit().unexplained);
    }
    for (n, binding) in bindings.iter().enumerate() {
        faults.extend(Witness::new(binding).check(&closure.witnesses(n)));
    }
    Failure::all(faults)?;
    lap("witnessed");
    if before[0] == "plan" {
        let emitted = emit::emit(&closure, &KernelBinder::new(&kernel, &vmlinux, &bindings))?;
        lap("emitted");
        let out = path(1);
        let put =
            |name: &str, bytes: &[u8]| std::fs::write(out.join(name), bytes).expect("a writable directory");
        put("klpx-closure.o", &emitted.object);
        put("klpx-glue.c", glue::source(&emitted.plan, glue::Options { replace: true }).as_bytes());
        put("Kbuild", glue::kbuild("livepatch-test").as_bytes());
        println!("{:#?}", emitted.plan.objects);
        emitted.plan.warnings.iter().for_each(|warning| println!("warning: {warning}"));
    } else {
        let bytes = finish::finish(&ElfFile::open(&path(1))?)?;
        lap("finished");
        std::fs::write(&before[2], &bytes).expect("a writable file");
        let file = ElfFile::from_bytes(path(2), bytes);
        let images: Vec<&Image<'_>> = std::iter::once(&vmlinux).chain(&modules).collect();
        println!("{:?}", verify(&file, &KernelFiles::new(&kernel, &images), &pairs)?);
        lap("verified");
    }
    Ok(())
}
