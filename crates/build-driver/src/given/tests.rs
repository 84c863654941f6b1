//! Which variables may be given to make, and how klpx passes them on.

use super::*;

fn read(texts: &[&str]) -> Result<Given> {
    Given::read(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
}

fn code(texts: &[&str]) -> &'static str {
    let failure = read(texts).expect_err("refused");
    failure.diagnoses().next().expect("one").code
}

/// The words for make in the workspace `/w`, and the flags.
fn told(given: &Given) -> (Vec<String>, String) {
    (given.words(Path::new("/w")).collect(), given.flags(Path::new("/w")))
}

#[test]
fn variables_are_told_to_make_by_name_and_flags_are_apart() {
    let given =
        read(&["LLVM_IAS=0", "KCFLAGS=-O3 -march=x86-64-v3", "AFLAGS_x.o=-Wa,--a", "EMPTY="]).expect("given");
    let words = ["AFLAGS_x.o=-Wa,--a", "EMPTY=", "LLVM_IAS=0"].map(str::to_owned).to_vec();
    assert_eq!(told(&given), (words, "-O3 -march=x86-64-v3".to_owned()));
    let shown: Vec<String> = given.variables().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["AFLAGS_x.o=-Wa,--a", "EMPTY=", "KCFLAGS=-O3 -march=x86-64-v3", "LLVM_IAS=0"]);
}

#[test]
fn what_klpx_sets_and_what_make_would_run_is_refused() {
    for text in [
        "KCFLAGS",
        "=x",
        "obj=fs",
        "A B=x",
        "ARCH=arm64",
        "CC=gcc",
        "LLVM=1",
        "O=/x",
        "M=x",
        "V=1",
        "KBUILD_OUTPUT=x",
        "KERNELRELEASE=7",
        "KCONFIG_CONFIG=x",
        "MAKEFLAGS=-n",
        "SHELL=/bin/sh",
        "CONFIG_RUST=",
        "INSTALL_MOD_PATH=/x",
        "KCFLAGS=$(shell id)",
        "KCFLAGS=-DX='a'",
        "KCFLAGS=-O2\n-O3",
        "KCFLAGS=-I~/x;id",
        "X=~/y",
    ] {
        assert_eq!(code(&[text]), "klpx::make-variable", "{text}");
    }
    assert_eq!(code(&["KCFLAGS=-O2", "KCFLAGS=-O3"]), "klpx::make-variable", "make would take the last");
}

#[test]
fn files_are_known_by_what_they_hold_and_not_by_where_they_lie() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let (one, same, other) =
        (write("one.afdo", "f:1:1\n"), write("same one.afdo", "f:1:1\n"), write("other.afdo", "g:1:1\n"));
    let identity = |text: String| read(&[&text]).expect("given").identity();
    for start in ["CLANG_AUTOFDO_PROFILE=", "KCFLAGS=-fprofile-sample-use="] {
        let first = identity(format!("{start}{one}"));
        assert_ne!(first, identity(format!("{start}{other}")));
        assert_ne!(first, Given::default().identity());
    }
    let first = identity(format!("CLANG_AUTOFDO_PROFILE={one}"));
    assert_eq!(
        first,
        identity(format!("CLANG_AUTOFDO_PROFILE={same}")),
        "its name has a blank and does not count"
    );
    assert_ne!(identity("X=a".to_owned()), identity("X=b".to_owned()));
    assert_ne!(identity("X=a".to_owned()), identity("Y=a".to_owned()));
    assert_eq!(
        read(&["X=a", "Y=b"]).expect("given").identity(),
        read(&["Y=b", "X=a"]).expect("given").identity()
    );
    assert_ne!(identity(format!("PYTHON3={one}")), identity(format!("PYTHON3={other}")));
    std::fs::write(&one, "h:1:1\n").expect("a file");
    assert_ne!(first, identity(format!("CLANG_AUTOFDO_PROFILE={one}")), "it holds something else now");
}

#[test]
fn a_file_that_is_not_there_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display();
    for text in [
        format!("CLANG_AUTOFDO_PROFILE={path}/none"),
        format!("CLANG_AUTOFDO_PROFILE={path}"),
        format!("CLANG_PROPELLER_PROFILE_PREFIX={path}/p"),
        format!("KCFLAGS=-O2 -fprofile-sample-use={path}/none"),
        format!("PYTHON3={path}/none"),
        format!("PYTHON3={path}"),
        "X=./none".to_owned(),
    ] {
        assert_eq!(code(&[&text]), "klpx::make-file", "{text}");
    }
    for kept in [format!("KCFLAGS=-DX={path}/none -I{path}"), "X=a/b".to_owned()] {
        read(&[&kept]).expect("it is no path by itself");
    }
}

#[test]
fn a_relative_path_begins_in_this_folder() {
    let given = read(&["CLANG_AUTOFDO_PROFILE=Cargo.toml"]).expect("the folder of the package");
    let file = given.variables()[0].files().next().expect("a file").path().to_owned();
    assert_eq!(file, std::env::current_dir().expect("a folder").join("Cargo.toml"));
    let given = read(&["X=./Cargo.toml"]).expect("given");
    assert!(told(&given).0[0].starts_with("X=/"), "make runs elsewhere");
}

#[test]
fn profiles_are_copied_to_the_workspace_and_put_right() {
    let (folder, workspace) =
        (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (name, text) in [("k.afdo", "f:1:1\n"), ("p_cc_profile.txt", "v1\n"), ("p_ld_profile.txt", "f\n")] {
        std::fs::write(path(name), text).expect("a profile");
    }
    let given = read(&[
        &format!("CLANG_AUTOFDO_PROFILE={}", path("k.afdo")),
        &format!("CLANG_PROPELLER_PROFILE_PREFIX={}", path("p")),
        &format!("KCFLAGS=-O2 -fprofile-sample-use={}", path("k.afdo")),
    ])
    .expect("given");
    given.place(workspace.path()).expect("copied");
    let words: Vec<String> = given.words(workspace.path()).collect();
    let value = |n: usize| words[n].split_once('=').expect("a value").1.to_owned();
    let read = |path: String| std::fs::read_to_string(path).expect("a copy");
    assert_eq!(read(value(0)), "f:1:1\n");
    assert_eq!(
        (read(value(1) + "_cc_profile.txt"), read(value(1) + "_ld_profile.txt")),
        ("v1\n".into(), "f\n".into())
    );
    let flags = given.flags(workspace.path());
    let copy = flags.strip_prefix("-O2 -fprofile-sample-use=").expect("the flags").to_owned();
    assert_eq!(read(copy), "f:1:1\n");
    std::fs::write(value(0), "half").expect("a file");
    given.place(workspace.path()).expect("copied");
    assert_eq!(read(value(0)), "f:1:1\n");
    std::fs::write(path("k.afdo"), "another").expect("a file");
    std::fs::remove_file(value(0)).expect("removed");
    let failure = given.place(workspace.path()).expect_err("another file");
    assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::make-file");
}
