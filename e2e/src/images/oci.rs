//! The OCI image layout: one layer, its configuration, a manifest and an
//! index, each named by its digest, in one tar file.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::{Entry, Image};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A file of the layout, named by its digest.
struct Blob {
    media_type: &'static str,
    digest: String,
    content: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, content: Vec<u8>) -> Self {
        Self { media_type, digest: digest(&content), content }
    }

    fn json(media_type: &'static str, value: &Value) -> Result<Self> {
        Ok(Self::new(media_type, serde_json::to_vec(value)?))
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.content.len()})
    }
}

/// Writes `image` to the file `to`.
pub(super) fn write(image: &Image, to: &Path) -> Result<()> {
    let architecture = architecture()?;
    let layer = Blob::new("application/vnd.oci.image.layer.v1.tar", layer(image)?);
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": image.user.to_string(),
            "Entrypoint": image.entrypoint,
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    });
    let config = Blob::json("application/vnd.oci.image.config.v1+json", &config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
    });
    let manifest = Blob::json(MANIFEST, &manifest)?;
    let mut described = manifest.descriptor();
    described["annotations"] = json!({"io.containerd.image.name": image.reference});
    described["platform"] = json!({"architecture": architecture, "os": "linux"});
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [described],
    }))?;

    let mut archive = Builder::new(io::BufWriter::new(File::create(to)?));
    file(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    file(&mut archive, "index.json", 0o644, &index)?;
    for blob in [layer, config, manifest] {
        let path = format!("blobs/{}", blob.digest.replace(':', "/"));
        file(&mut archive, &path, 0o644, &blob.content)?;
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

fn layer(image: &Image) -> Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for (path, entry) in &image.entries {
        match entry {
            Entry::File { content, mode } => file(&mut archive, path, *mode, content)?,
            Entry::Folder { mode } => {
                let mut header = header(EntryType::Directory, *mode, 0);
                archive.append_data(&mut header, format!("{path}/"), io::empty())?;
            }
            Entry::Link { target } => {
                let mut header = header(EntryType::Symlink, 0o777, 0);
                archive.append_link(&mut header, path, target)?;
            }
        }
    }
    Ok(archive.into_inner()?)
}

fn file(archive: &mut Builder<impl Write>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let size = u64::try_from(content.len())?;
    let mut header = header(EntryType::Regular, mode, size);
    archive.append_data(&mut header, path, content).with_context(|| format!("cannot add {path}"))
}

/// A header in which nothing depends on when or by whom it is made.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn digest(content: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(content).iter().fold(String::from("sha256:"), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// This machine's architecture in Go's words, which are those of images.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no images are made for the architecture {other}"),
    }
}
