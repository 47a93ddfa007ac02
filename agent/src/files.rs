//! Files that are whole after a crash at any instant: the old content, or the new.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::steps::Steps;

/// Replaces `path` by a file with `content`, durably.
///
/// The temporary file starts with a dot and does not keep the extension, so that no reader of the
/// folder takes it for the file itself.
pub(crate) fn replace(path: &Path, content: &[u8], steps: &dyn Steps) -> io::Result<()> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "the path has no folder or no name");
    let (folder, name) = path.parent().zip(path.file_name()).ok_or_else(invalid)?;
    fs::create_dir_all(folder)?;
    let temporary = folder.join(format!(".{}.tmp", name.to_string_lossy()));
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    steps.reached("file written under its temporary name");
    fs::rename(&temporary, path)?;
    steps.reached("file renamed, its folder not yet on disk");
    sync_folder(folder)
}

/// Removes `path` if it is there, durably.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => path.parent().map_or(Ok(()), sync_folder),
    }
}

/// Makes renames and removals in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
