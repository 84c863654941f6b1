//! The paths where the files of a kernel may lie: those of distributions, and those of self-made kernels. Reads no file.

use super::distribution::{DISTRIBUTIONS, Distribution};
use super::pattern::PatternValues;
use super::piece::KernelPiece;

/// Paths of self-made kernels and of unknown distributions.
static COMMON: [(KernelPiece, &str); 17] = [
    (KernelPiece::Headers, "lib/modules/{release}/build"),
    (KernelPiece::Headers, "usr/lib/modules/{release}/build"),
    (KernelPiece::Config, "lib/modules/{release}/config"),
    (KernelPiece::Config, "usr/lib/modules/{release}/config"),
    (KernelPiece::Config, "boot/config-{release}"),
    (KernelPiece::Vmlinux, "lib/modules/{release}/build/vmlinux"),
    (KernelPiece::Vmlinux, "usr/lib/modules/{release}/build/vmlinux"),
    (KernelPiece::Vmlinux, "lib/modules/{release}/vmlinux"),
    (KernelPiece::Vmlinux, "usr/lib/modules/{release}/vmlinux"),
    (KernelPiece::Vmlinux, "boot/vmlinux-{release}"),
    (KernelPiece::BootImage, "boot/vmlinuz-{release}"),
    (KernelPiece::BootImage, "lib/modules/{release}/vmlinuz"),
    (KernelPiece::BootImage, "usr/lib/modules/{release}/vmlinuz"),
    (KernelPiece::Modules, "lib/modules/{release}"),
    (KernelPiece::Modules, "usr/lib/modules/{release}"),
    (KernelPiece::Source, "lib/modules/{release}/source"),
    (KernelPiece::Source, "usr/lib/modules/{release}/source"),
];

/// Folders with file names that contain kernel releases, and the prefix of these names.
pub(super) static RELEASE_NAMES: [(&str, &str); 6] = [
    ("lib/modules", ""),
    ("usr/lib/modules", ""),
    ("usr/src", "linux-headers-"),
    ("usr/src/kernels", ""),
    ("usr/lib/debug/boot", "vmlinux-"),
    ("usr/lib/debug/lib/modules", ""),
];

/// A path where a piece of a kernel may lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PiecePath {
    /// Path below the root.
    pub(super) path: String,
    /// The package that installs the piece. `None` for paths without a package.
    pub(super) package: Option<String>,
}

/// All paths of a piece, the distribution's paths first. If the distribution is unknown, the paths of all distributions
/// count: a path with the release in it can't mislead.
pub(super) fn places(
    distribution: Option<&'static Distribution>,
    piece: KernelPiece,
    kernel: &PatternValues<'_>,
) -> Vec<PiecePath> {
    let rows = DISTRIBUTIONS.iter().filter(|row| distribution.is_none_or(|known| known == *row));
    let own = rows.flat_map(|row| row.places).filter(|(row_piece, ..)| *row_piece == piece);
    let own = own.map(|(_, path, package)| PiecePath {
        path: kernel.fill(path),
        package: distribution.map(|_| kernel.fill(package)),
    });
    let common = COMMON.iter().filter(|(row_piece, _)| *row_piece == piece);
    let common = common.map(|(_, path)| PiecePath { path: kernel.fill(path), package: None });
    let mut found: Vec<PiecePath> = Vec::new();
    for place in own.chain(common) {
        if found.iter().all(|other| other.path != place.path) {
            found.push(place);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_places_and_packages_for_what_a_livepatch_needs() {
        for row in &DISTRIBUTIONS {
            let kernel = PatternValues { release: "6.8.0-45-generic", package: "6.8.0-45.45" };
            for piece in KernelPiece::ALL {
                let prepared_by_hand = piece == KernelPiece::Source && row.source.is_some();
                assert!(
                    prepared_by_hand || !row.packages(piece, &kernel).is_empty(),
                    "{}: {piece:?}",
                    row.name
                );
                let place = places(Some(row), piece.comes_with(), &kernel).into_iter().next();
                let own = place.is_some_and(|place| place.package.is_some());
                assert!(prepared_by_hand || own, "{}: {piece:?}", row.name);
            }
        }
    }
}
