//! Finds which units that include an edited file are changed by the edit: those whose preprocessed text differs. Most
//! units that include a header do not use the edited part of the header.
//!
//! [`CodeText`] decides which part of a text counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes, words};

use crate::files::remove_file;
use crate::kbuild::environment::Environment;
use crate::kbuild::estimate::{self, Making};
use crate::kbuild::make::{MakeResult, MakeSettings, original_does_not_build, patched_fails};
use crate::kbuild::recorded::RecordedCommands;
use crate::kbuild::{CodeText, KbuildUnit, ObjectRule, UnitId, UnitList, UnitSource};
use crate::parallel::each;
use crate::patch::AppliedPatch;
use crate::progress::{ObjectCounter, Progress};
use crate::workspace::Workspace;

impl Workspace {
    /// The candidates whose text the patch changes, in order.
    pub(crate) fn with_other_text(
        &self,
        prepared: &AppliedPatch,
        list: &UnitList,
        candidates: &[UnitId],
        progress: &dyn Progress,
    ) -> Result<Vec<UnitId>> {
        if let Some(time) = estimate::long(Making::Text, candidates.len(), self.kernel.jobs()) {
            let units = words::plural(candidates.len(), "unit");
            progress.note(&format!("preprocessing {units} that include an edited file takes {time}"));
        }
        progress.step("preprocessing units that include an edited file");
        let units: Vec<&KbuildUnit> = candidates.iter().map(|&id| list.unit(id)).collect();
        let original = self.texts(&units, progress, original_does_not_build)?;
        let patched = self.while_patched(prepared, |_| self.texts(&units, progress, patched_fails))?;
        let both = original.into_iter().zip(patched);
        let other: Vec<UnitId> =
            candidates.iter().zip(both).filter(|(_, (a, b))| a != b).map(|(&id, _)| id).collect();
        let offsets = self.with_same_offsets(prepared, list, &other)?;
        Ok(other.into_iter().filter(|id| !offsets.contains(id)).collect())
    }

    /// Among the units from which headers for assembly are made, those whose headers the patch does not change. The text
    /// of such a unit includes half of the kernel, but its header is a list of numbers.
    fn with_same_offsets(
        &self,
        prepared: &AppliedPatch,
        list: &UnitList,
        units: &[UnitId],
    ) -> Result<Vec<UnitId>> {
        let of_offsets: Vec<UnitId> =
            units.iter().copied().filter(|&id| list.unit(id).rule == ObjectRule::Offsets).collect();
        if of_offsets.is_empty() {
            return Ok(Vec::new());
        }
        let environment = Environment::read(&self.dir)?;
        let numbers = || -> Result<Vec<Vec<String>>> {
            of_offsets
                .iter()
                .map(|&id| {
                    let unit = list.unit(id);
                    let target = PathBuf::from(unit.target());
                    remove_file(&self.build_dir().join(&unit.object))?;
                    self.with_make(|make| {
                        let built = environment.make(make, &unit.folder, &[target], &mut |_| {})?;
                        if built.success { Ok(()) } else { Err(patched_fails(make, &built)) }
                    })?;
                    offsets(&self.build_dir().join(&unit.object))
                })
                .collect()
        };
        let original = numbers()?;
        let patched = self.while_patched(prepared, |_| numbers())?;
        let both = original.into_iter().zip(patched);
        Ok(of_offsets.into_iter().zip(both).filter(|(_, (a, b))| a == b).map(|(id, _)| id).collect())
    }

    /// The texts of units, from the current source.
    fn texts(
        &self,
        units: &[&KbuildUnit],
        progress: &dyn Progress,
        failure: impl Fn(&MakeSettings<'_>, &MakeResult) -> klpx_diagnosis::Failure,
    ) -> Result<Vec<blake3::Hash>> {
        let targets = units.iter().map(|unit| preprocessed(unit)).collect::<Result<Vec<PathBuf>>>()?;
        let mut folders: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
        for (unit, target) in units.iter().zip(&targets) {
            folders.entry(&unit.folder).or_default().push(target.clone());
        }
        // Texts that an earlier patch left must not count, whatever dependencies make knows.
        let build = self.build_dir();
        targets.iter().try_for_each(|target| remove_file(&build.join(target)))?;
        let environment = Environment::read(&self.dir)?;
        let makefile = self.dir.join("texts.mk");
        let rules = units
            .iter()
            .zip(&targets)
            .filter_map(|(unit, target)| text_rule(&unit.source, &unit.object, &unit.rule, target));
        std::fs::write(&makefile, rules.collect::<String>())
            .map_err(|error| Diagnosis::io("write", &makefile, &error))?;
        let made = ObjectCounter::new(Some(units.len()));
        self.with_make(|make| {
            for (folder, targets) in &folders {
                let preprocess = || environment.make_texts(make, folder, targets, &makefile);
                let mut built = preprocess()?;
                if !built.success {
                    // Headers that only this folder's objects need are made with the objects.
                    let objects: Vec<PathBuf> =
                        targets.iter().map(|target| target.with_extension("o")).collect();
                    built = environment.make(make, folder, &objects, &mut |_| {})?;
                    if built.success {
                        built = preprocess()?;
                    }
                }
                if !built.success {
                    return Err(failure(make, &built));
                }
                made.add(targets.len(), progress);
            }
            Ok(())
        })?;
        each(self.kernel.jobs(), targets.len(), |at| text(&build, &targets[at])).into_iter().collect()
    }
}

/// kbuild's name of a unit's preprocessed text (scripts/Makefile.build: `%.i` for C, `%.s` for assembly).
fn preprocessed(unit: &KbuildUnit) -> Result<PathBuf> {
    let ending = match unit.rule {
        ObjectRule::C | ObjectRule::Offsets => "i",
        ObjectRule::Assembly => "s",
        _ => {
            let what = "klpx can't tell whether an edited header changes this unit";
            return Err(Diagnosis::new(
                &codes::NOT_C,
                what,
                "it is compiled neither from C nor from assembly",
                "leave the header out of the patch",
            )
            .place(DiagnosisPlace::file(unit.object.clone(), None))
            .into());
        }
    };
    Ok(Path::new(unit.target()).with_extension(ending))
}

/// Returns the rule for the text of a unit whose source has another folder or name than the object. For such a unit kbuild
/// has a rule for the object only (arch/x86/purgatory/Makefile, drivers/firmware/efi/libstub/Makefile,
/// kernel/bpf/Makefile of 6.12). The commands are those of scripts/Makefile.build, the same from 6.1 to 7.3.
fn text_rule(source: &UnitSource, object: &str, rule: &ObjectRule, target: &Path) -> Option<String> {
    let (path, source) = match source {
        UnitSource::Tree(path) => (path, format!("$(srctree)/{path}")),
        UnitSource::Generated(path) => (path, path.clone()),
        UnitSource::Unknown => return None,
    };
    let is_usual = Path::new(path).with_extension("") == Path::new(object).with_extension("");
    let command = if *rule == ObjectRule::Assembly { "cpp_s_S" } else { "cpp_i_c" };
    let target = target.display();
    (!is_usual).then(|| format!("{target}: {source} FORCE\n\t$(call if_changed_dep,{command})\n"))
}

/// The lines that become a header (include/linux/kbuild.h marks them with `->`).
fn offsets(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read(path).map_err(|error| Diagnosis::io("read", path, &error))?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().filter(|line| line.contains("->")).map(str::to_owned).collect())
}

/// The identity of the part of a unit's text that counts. All of the text counts if the unit's command is unknown.
fn text(build: &Path, target: &Path) -> Result<blake3::Hash> {
    let path = build.join(target);
    let bytes = std::fs::read(&path).map_err(|error| Diagnosis::io("read", &path, &error))?;
    let record = RecordedCommands::read(build, target);
    let part = record
        .and_then(|record| Some(CodeText::for_compilation(record.commands.first()?)))
        .unwrap_or(CodeText::WithPlaces);
    Ok(part.identity(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_lies_elsewhere_has_a_rule_for_its_text() {
        let rule = |object: &str, source: UnitSource, rule: ObjectRule| {
            let ending = if rule == ObjectRule::Assembly { "s" } else { "i" };
            text_rule(&source, object, &rule, &Path::new(object).with_extension(ending))
        };
        let tree = |path: &str| UnitSource::Tree(path.to_owned());
        let made = |path: &str| UnitSource::Generated(path.to_owned());
        for (object, source) in
            [("a/b.o", tree("a/b.c")), ("a/b.o", made("a/b.c")), ("a/b.o", UnitSource::Unknown)]
        {
            assert_eq!(rule(object, source, ObjectRule::C), None, "{object}");
        }
        for (object, source, kind, wanted) in [
            (
                "a/sha.o",
                tree("lib/sha.c"),
                ObjectRule::C,
                "a/sha.i: $(srctree)/lib/sha.c FORCE\n\t$(call if_changed_dep,cpp_i_c)\n",
            ),
            (
                "a/in.o",
                made("gen/in.c"),
                ObjectRule::C,
                "a/in.i: gen/in.c FORCE\n\t$(call if_changed_dep,cpp_i_c)\n",
            ),
            (
                "a/g.nvhe.o",
                tree("a/g.S"),
                ObjectRule::Assembly,
                "a/g.nvhe.s: $(srctree)/a/g.S FORCE\n\t$(call if_changed_dep,cpp_s_S)\n",
            ),
        ] {
            assert_eq!(rule(object, source, kind).as_deref(), Some(wanted));
        }
    }
}
