//! rust-embed does not notice new files in an existing folder by itself.

fn main() {
    println!("cargo::rerun-if-changed=playground/dist");
}
