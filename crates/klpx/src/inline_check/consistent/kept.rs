//! Files in the folder for lists that a run writes and the next run reads: the choices, and the figures of each build.

use std::path::Path;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_inline_check::consistent::ChoiceLists;

/// The file with the choices, in the folder for lists.
const FUNCTIONS: &str = "functions.tsv";
/// The file with the figures of all builds, in the folder for lists.
const BUILDS: &str = "builds.tsv";
/// The first line of `BUILDS`.
const HEADING: &str = "out of line\thalf-inlined\tinlined copies\tbytes of code";

/// The figures of one build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BuildFigures {
    pub(super) out_of_line: u64,
    pub(super) half_inlined: u64,
    pub(super) inlined: u64,
    pub(super) code: u64,
}

/// The choices and builds of all runs so far.
pub(super) struct KeptRuns {
    pub(super) lists: ChoiceLists,
    pub(super) builds: Vec<BuildFigures>,
}

impl KeptRuns {
    /// Reads the files of earlier runs; empty if there are none.
    pub(super) fn read(dir: &Path) -> Result<KeptRuns> {
        let path = dir.join(FUNCTIONS);
        let lists = match read(&path)? {
            Some(text) => ChoiceLists::parse(&text).map_err(|error| broken(&path, error.0))?,
            None => ChoiceLists::default(),
        };
        let path = dir.join(BUILDS);
        let text = read(&path)?.unwrap_or_default();
        let row = |(n, line): (usize, &str)| build(line).ok_or_else(|| broken(&path, n + 1));
        let builds = text.lines().enumerate().skip(1).map(row).collect::<std::result::Result<_, _>>()?;
        Ok(KeptRuns { lists, builds })
    }

    /// The number of a build, from 1. A build with the figures of an earlier one has that one's number.
    pub(super) fn number(&mut self, this: BuildFigures) -> usize {
        let at = self.builds.iter().position(|build| *build == this).unwrap_or_else(|| {
            self.builds.push(this);
            self.builds.len() - 1
        });
        at + 1
    }

    /// Writes the files for the next run.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let row =
            |b: &BuildFigures| format!("{}\t{}\t{}\t{}\n", b.out_of_line, b.half_inlined, b.inlined, b.code);
        let builds = std::iter::once(format!("{HEADING}\n")).chain(self.builds.iter().map(row)).collect();
        for (name, text) in [(FUNCTIONS, self.lists.to_text()), (BUILDS, builds)] {
            let path = dir.join(name);
            std::fs::write(&path, text).map_err(|error| Diagnosis::io("write", &path, &error))?;
        }
        Ok(())
    }
}

fn build(line: &str) -> Option<BuildFigures> {
    let cells: Option<Vec<u64>> = line.split('\t').map(|cell| cell.parse().ok()).collect();
    let [out_of_line, half_inlined, inlined, code] = *cells?.as_slice() else { return None };
    Some(BuildFigures { out_of_line, half_inlined, inlined, code })
}

fn read(path: &Path) -> Result<Option<String>> {
    match klpx_input::bytes(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes?).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Diagnosis::io("read", path, &error).into()),
    }
}

/// The failure for an earlier run's list with a name that no list can contain.
pub(super) fn bad_name(name: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::BAD_LIST,
        format!("{name:?} is no name of a function"),
        "klpx writes names of C only",
        "start again from the plain build in another folder",
    )
    .place(DiagnosisPlace::file(FUNCTIONS, None))
}

fn broken(path: &Path, line: usize) -> Diagnosis {
    let what = "a list of an earlier run can't be read";
    Diagnosis::new(
        &codes::BAD_LIST,
        what,
        "klpx did not write this line",
        "start again from the plain build in another folder",
    )
    .place(DiagnosisPlace::file(path.display().to_string(), u32::try_from(line).ok()))
}
