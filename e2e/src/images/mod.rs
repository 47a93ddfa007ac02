//! Container images without a container engine: an OCI layout in a tar file,
//! made of a program and the shared libraries it needs. The same inputs give
//! the same bytes. For nodes of the lab, not for users: those have
//! Containerfiles.
