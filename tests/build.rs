//! Passes on where `lb-daemon/build.rs` left the BPF object of the bench.

use std::{env, path::Path};

fn main() {
    let objects = env::var_os("DEP_LB_XDP_OBJECTS").expect("lb-daemon's build script sets it");
    println!("cargo::rustc-env=LB_BENCH_OBJECT={}", Path::new(&objects).join("lb-bench").display());
    println!("cargo::rerun-if-changed=build.rs");
}
