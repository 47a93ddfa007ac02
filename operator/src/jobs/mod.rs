//! Jobs of vingt's kinds: the objects they are made of, how far they are, and
//! what their status says. Nothing is written here.

pub mod facts;
pub mod moves;
pub mod objects;
pub mod server;
pub mod status;
pub mod template;
