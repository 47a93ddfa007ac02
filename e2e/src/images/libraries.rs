//! Which shared libraries a program needs, as this machine's loader says.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The libraries that `file` needs and the loader that loads them, as absolute
/// paths; none for a static program.
pub fn libraries(file: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(file)
        .env("LC_ALL", "C")
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("LD_PRELOAD")
        .output()
        .context("cannot run ldd, which is part of the C library's package")?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if [&out, &err]
        .iter()
        .any(|text| text.contains("not a dynamic executable") || text.contains("statically linked"))
    {
        return Ok(Vec::new());
    }
    ensure!(output.status.success(), "ldd {} failed: {}", file.display(), err.trim());
    parse(&out).with_context(|| format!("ldd {}", file.display()))
}

fn parse(text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines() {
        // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)", or the loader:
        // "/lib64/ld-linux-x86-64.so.2 (0x…)", or the kernel's: "linux-vdso.so.1 (0x…)".
        let (name, path) = line.split_once("=>").unwrap_or((line, line));
        ensure!(!path.contains("not found"), "{} is not installed", name.trim());
        let path = path.split_whitespace().next().unwrap_or_default();
        if path.starts_with('/') {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_and_the_kernels_is_not() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(parse(text).unwrap(), expected.map(PathBuf::from));
    }

    #[test]
    fn a_missing_library_is_named() {
        let error = parse("\tlibfoo.so.1 => not found\n").unwrap_err();
        assert_eq!(error.to_string(), "libfoo.so.1 is not installed");
    }
}
