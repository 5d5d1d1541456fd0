//! Reruns the build when playground files change: rust-embed does not notice new files in an existing folder.

fn main() {
    println!("cargo::rerun-if-changed=playground/dist");
}
