//! snapshot

mod selector;
