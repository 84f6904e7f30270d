//! First steps.
fn main() {}
