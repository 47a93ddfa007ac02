//! Container images without a container engine: an OCI layout in a tar file,
//! made of programs and the shared libraries they need. The same inputs give
//! the same bytes. For nodes of the lab, not for users: those have
//! Containerfiles.

mod libraries;
mod oci;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::build::rust::Artifacts;

pub use libraries::libraries;

/// What is at one path of an image.
#[derive(Debug, Clone)]
enum Entry {
    Folder { mode: u32 },
    File { content: Vec<u8>, mode: u32 },
    Link { target: String },
}

/// An image in the making.
#[derive(Debug, Clone)]
pub struct Image {
    reference: String,
    user: u32,
    entrypoint: Vec<String>,
    // By path without the leading slash, so that folders come before what is
    // in them and the order is always the same.
    entries: BTreeMap<String, Entry>,
}

impl Image {
    /// An empty image with the folders every container needs.
    ///
    /// `reference` is the name pods use, with its tag; `user` is the id its
    /// process runs as.
    pub fn new(reference: &str, user: u32, entrypoint: &[&str]) -> Self {
        let mut image = Self {
            reference: qualified(reference),
            user,
            entrypoint: entrypoint.iter().map(ToString::to_string).collect(),
            entries: BTreeMap::new(),
        };
        image.entries.insert("tmp".into(), Entry::Folder { mode: 0o1777 });
        for (folder, mode) in [("dev", 0o755), ("proc", 0o555), ("sys", 0o555), ("root", 0o700)] {
            image.entries.insert(folder.into(), Entry::Folder { mode });
        }
        let users = "root:x:0:0:root:/root:/bin/sh\nnonroot:x:65532:65532:nonroot:/tmp:/bin/false\n";
        let groups = "root:x:0:\nnonroot:x:65532:\n";
        image.add("etc/passwd", Entry::File { content: users.into(), mode: 0o644 });
        image.add("etc/group", Entry::File { content: groups.into(), mode: 0o644 });
        image
    }

    /// Adds a program of this machine at `path`, with the libraries it needs
    /// where the program looks for them.
    pub fn program(mut self, path: &str, program: &Path) -> Result<Self> {
        self.copy(path, program)?;
        self.needs_of(program)
    }

    /// Adds the libraries that `file` needs, but not itself: for a library
    /// that a container finds in its image's surroundings only.
    pub fn needs_of(mut self, file: &Path) -> Result<Self> {
        for library in libraries(file)? {
            let path = library.to_string_lossy().into_owned();
            self.copy(&path, &library)?;
        }
        Ok(self)
    }

    /// Adds symbolic links to `target`.
    #[must_use]
    pub fn links(mut self, target: &str, paths: &[&str]) -> Self {
        for path in paths {
            self.add(path, Entry::Link { target: target.to_owned() });
        }
        self
    }

    /// Writes the image to a tar file that `ctr images import` reads.
    pub fn write(&self, to: &Path) -> Result<()> {
        oci::write(self, to).with_context(|| format!("cannot write the image {}", to.display()))
    }

    fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let read =
            || -> std::io::Result<_> { Ok((fs::read(from)?, fs::metadata(from)?.permissions().mode())) };
        let (content, mode) = read().with_context(|| format!("cannot read {}", from.display()))?;
        let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
        self.add(path, Entry::File { content, mode });
        Ok(())
    }

    fn add(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/') {
            let folder = path[..end].to_owned();
            self.entries.entry(folder).or_insert(Entry::Folder { mode: 0o755 });
        }
        self.entries.insert(path.to_owned(), entry);
    }
}

/// Names of the lab's images; every one has [`TAG`].
pub const REGISTRY: &str = "lab.vingt.dev";
/// Tag of the lab's images.
pub const TAG: &str = "lab";

/// The name of one of the lab's images, `pause`, `workload`, `vingt-agent` or
/// `vingt-operator`, as pods write it.
pub fn reference(image: &str) -> String {
    format!("{REGISTRY}/{image}:{TAG}")
}

/// Makes all images of the lab in `folder`; answers their files.
///
/// `busybox` is a busybox of this machine. The images are those of vingt, one
/// to run in a user's pods (busybox and the agent, for its `devices` command)
/// and what holds a pod's network.
pub fn build(artifacts: &Artifacts, busybox: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let agent = "/usr/bin/vingt-agent";
    let operator = "/usr/bin/vingt-operator";
    let images = [
        (
            "pause",
            Image::new(&reference("pause"), 65532, &["/bin/busybox", "sleep", "2147483647"])
                .program("/bin/busybox", busybox)?,
        ),
        ("workload", workload(busybox)?.program(agent, &artifacts.agent)?.needs_of(&artifacts.emulator)?),
        (
            "vingt-agent",
            Image::new(&reference("vingt-agent"), 0, &[agent])
                .program(agent, &artifacts.agent)?
                .needs_of(&artifacts.emulator)?,
        ),
        (
            "vingt-operator",
            Image::new(&reference("vingt-operator"), 65532, &[operator])
                .program(operator, &artifacts.operator)?,
        ),
    ];
    fs::create_dir_all(folder)?;
    let mut files = Vec::new();
    for (name, image) in images {
        let file = folder.join(format!("{name}.tar"));
        image.write(&file)?;
        files.push(file);
    }
    Ok(files)
}

/// Programs of busybox that samples and tests call by their own names.
const APPLETS: [&str; 14] = [
    "sh", "cat", "date", "echo", "env", "grep", "hostname", "ls", "nc", "seq", "sleep", "test", "true",
    "wget",
];

fn workload(busybox: &Path) -> Result<Image> {
    let links: Vec<String> = APPLETS.iter().map(|applet| format!("/bin/{applet}")).collect();
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    let image = Image::new(&reference("workload"), 0, &["/bin/sh"]).program("/bin/busybox", busybox)?;
    Ok(image.links("busybox", &links))
}

/// A reference with its registry, as containerd completes it.
fn qualified(reference: &str) -> String {
    let registry = reference.split('/').next().unwrap_or_default();
    if reference.contains('/') && (registry.contains(['.', ':']) || registry == "localhost") {
        reference.to_owned()
    } else {
        format!("docker.io/{reference}")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn entries(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(tar);
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.push((entry.path().unwrap().to_string_lossy().into_owned(), content));
        }
        found
    }

    fn json(files: &[(String, Vec<u8>)], digest: &str) -> serde_json::Value {
        let path = format!("blobs/{}", digest.replace(':', "/"));
        let (_, content) = files.iter().find(|(name, _)| *name == path).unwrap();
        serde_json::from_slice(content).unwrap()
    }

    #[test]
    fn a_program_comes_with_its_libraries_and_twice_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let program = std::env::current_exe().unwrap();
            let image =
                Image::new("vingt-lab/try:lab", 0, &["/bin/try"]).program("/bin/try", &program).unwrap();
            let path = folder.path().join(name);
            image.links("try", &["/bin/other"]).write(&path).unwrap();
            fs::read(path).unwrap()
        };
        let tar = make("one");
        assert!(tar == make("two"), "two builds differ");

        let files = entries(&tar);
        let (_, index) = files.iter().find(|(name, _)| name == "index.json").unwrap();
        let index: serde_json::Value = serde_json::from_slice(index).unwrap();
        let descriptor = &index["manifests"][0];
        assert_eq!(descriptor["annotations"]["io.containerd.image.name"], "docker.io/vingt-lab/try:lab");
        let manifest = json(&files, descriptor["digest"].as_str().unwrap());
        let config = json(&files, manifest["config"]["digest"].as_str().unwrap());
        assert_eq!(config["config"]["Entrypoint"][0], "/bin/try");
        assert_eq!(config["config"]["User"], "0");
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], layer, "the layer is not compressed");

        let path = format!("blobs/{}", layer.replace(':', "/"));
        let (_, layer) = files.iter().find(|(name, _)| *name == path).unwrap();
        let paths: Vec<String> = entries(layer).into_iter().map(|(path, _)| path).collect();
        for wanted in ["bin/try", "bin/other", "etc/passwd", "tmp/"] {
            assert!(paths.iter().any(|path| path == wanted), "no {wanted} in {paths:?}");
        }
        assert!(paths.iter().any(|path| path.contains("libc.so")), "no libc in {paths:?}");
        assert!(paths.iter().any(|path| path.contains("ld-linux")), "no loader in {paths:?}");
        let folder = paths.iter().position(|path| path == "bin/").unwrap();
        assert!(folder < paths.iter().position(|path| path == "bin/try").unwrap());
    }

    #[test]
    fn names_are_completed_as_containerd_does() {
        for (name, full) in [
            ("busybox:1", "docker.io/busybox:1"),
            ("vingt-lab/pause:lab", "docker.io/vingt-lab/pause:lab"),
            ("localhost/a:b", "localhost/a:b"),
            ("ghcr.io/a/b:c", "ghcr.io/a/b:c"),
            ("host:5000/a:b", "host:5000/a:b"),
        ] {
            assert_eq!(qualified(name), full);
        }
    }
}
