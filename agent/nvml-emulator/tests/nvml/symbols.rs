//! Every name of NVML is exported: programs built on go-nvml die of a missing one.

use nvml_emulator::{emulated_functions, unsupported_functions};

use crate::node::Node;

#[test]
fn every_nvml_symbol_resolves_in_the_built_library() {
    let names: Vec<&str> = include_str!("symbols.txt").lines().collect();
    assert_eq!(names.len(), 428);
    let node = Node::h100s(1, false);
    // SAFETY: the library runs nothing when it is loaded.
    let library = unsafe { libloading::Library::new(node.library()) }.expect("the library loads");
    // SAFETY: the symbols are only looked up, never called.
    let missing = |name: &&&str| unsafe { library.get::<*const ()>(name.as_bytes()) }.is_err();
    assert_eq!(names.iter().filter(missing).collect::<Vec<_>>(), Vec::<&&str>::new());

    let mut known: Vec<&str> = emulated_functions().chain(unsupported_functions()).collect();
    let (emulated, unsupported) = (emulated_functions().count(), unsupported_functions().count());
    println!("{emulated} functions are emulated, {unsupported} answer NVML_ERROR_NOT_SUPPORTED");
    known.sort_unstable();
    assert_eq!(known, names);
}
