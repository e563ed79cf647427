//! Builds the XDP programs for the BPF target and leaves the objects where they are included: the
//! daemon's for the daemon, the bench's for the crates that depend on it.
//!
//! A nested cargo, because the target, the flags and the profile differ from the daemon's. Its
//! target directory lies beside the outer one's and is shared by all profiles.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const OBJECTS: [&str; 2] = ["lb-xdp", "lb-bench"];

/// `v3` is the BPF instruction set of kernel 5.1; unaligned loads shrink the parser by a fifth.
const RUSTFLAGS: [&str; 6] = [
    "-Cdebuginfo=2",
    "-Clinker=bpf-linker",
    "-Clink-arg=--btf",
    "-Ctarget-cpu=v3",
    "-Ctarget-feature=+allows-misaligned-mem-access",
    "-Cpanic=abort",
];

fn main() {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let lb_ebpf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lb-ebpf");
    for watched in ["../lb-ebpf/src", "../lb-ebpf/Cargo.toml", "../Cargo.lock", "build.rs"] {
        println!("cargo::rerun-if-changed={watched}");
    }
    println!("cargo::rerun-if-env-changed={RUSTC_FALLBACK}");

    let target_dir = target_dir(&out_dir);
    let status = cargo(&lb_ebpf, &target_dir).status();
    match status {
        Ok(status) if status.success() => {}
        Ok(_) | Err(_) => {
            println!(
                "cargo::error=the XDP programs did not build; \
                 `cargo xtask setup` installs what that needs (rust-src, bpf-linker)"
            );
            std::process::exit(1);
        }
    }
    for name in OBJECTS {
        let object = target_dir.join("bpfel-unknown-none/release").join(name);
        fs::copy(&object, out_dir.join(name))
            .unwrap_or_else(|error| panic!("copy {}: {error}", object.display()));
    }
    // The build scripts of dependents read it as `DEP_LB_XDP_OBJECTS`.
    println!("cargo::metadata=OBJECTS={}", out_dir.display());
}

/// Names a rustc that brings its own `core` for the BPF target; else `core` is built from
/// rust-src.
const RUSTC_FALLBACK: &str = "TANDEM_BPF_RUSTC";

fn cargo(lb_ebpf: &Path, target_dir: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if is_of_the_outer_build(&name) {
            command.env_remove(name);
        }
    }
    command
        .current_dir(lb_ebpf)
        .args(["build", "--release", "--locked", "--features", "programs", "--bins"])
        .args(["--target", "bpfel-unknown-none"])
        .arg("--target-dir")
        .arg(target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"))
        .env("RUSTC_BOOTSTRAP", "1");
    match env::var_os(RUSTC_FALLBACK) {
        Some(rustc) => command.env("RUSTC", rustc),
        None => command.args(["-Z", "build-std=core"]),
    };
    command
}

/// What cargo sets for build scripts would reach the nested build's compiler and its own scripts.
fn is_of_the_outer_build(name: &OsString) -> bool {
    let Some(name) = name.to_str() else { return false };
    matches!(name, "RUSTC" | "RUSTDOC" | "RUSTFLAGS" | "TARGET" | "HOST" | "PROFILE" | "OPT_LEVEL")
        || name.starts_with("RUSTC_")
        || (name.starts_with("CARGO_") && name != "CARGO_HOME")
}

/// `OUT_DIR` is `<target>/<profile>/build/<package>-<hash>/out`.
fn target_dir(out_dir: &Path) -> PathBuf {
    let target = out_dir.ancestors().nth(4).expect("OUT_DIR has the shape that cargo gives it");
    target.join("bpf")
}
