//! Writes the results into a folder that appears whole or not at all: files go
//! into a hidden one beside it, which gets its name at the end.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;

use super::outcome::Results;
use super::{page, plot};
use crate::words::BadInput;

/// A folder to be.
pub struct Folder {
    path: PathBuf,
    parent: PathBuf,
}

impl Folder {
    /// Nothing is made yet. The error says that there is something of this name, or that nothing can be written there.
    pub fn new(path: &Path) -> Result<Self, BadInput> {
        if path.symlink_metadata().is_ok() {
            let why = "it is there already: give a new name, or remove it";
            return Err(BadInput(format!("--output {}: {why}", path.display())));
        }
        let parent = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => Path::new("/"),
        };
        let folder = Self { path: path.to_owned(), parent: parent.to_owned() };
        // Better known now than when all is played.
        folder.hidden().map_err(|error| BadInput(format!("--output {}: {error}", path.display())))?;
        Ok(folder)
    }

    /// A folder beside it, which is gone with all that is in it when it is dropped.
    fn hidden(&self) -> std::io::Result<TempDir> {
        tempfile::Builder::new().prefix(".vingt-").tempdir_in(&self.parent)
    }

    /// Makes it, with these files.
    fn fill<'a>(self, files: impl IntoIterator<Item = (String, &'a str)>) -> anyhow::Result<()> {
        let hidden = self.hidden().with_context(|| format!("cannot write to {}", self.parent.display()))?;
        for (name, text) in files {
            let to = hidden.path().join(name);
            fs::write(&to, text).with_context(|| format!("cannot write {}", to.display()))?;
        }
        // It was made for its owner alone; results are like any other file.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(hidden.path(), fs::Permissions::from_mode(0o755))?;
        }
        fs::rename(hidden.path(), &self.path)
            .with_context(|| format!("cannot name the results {}", self.path.display()))?;
        // It is gone from where it was.
        let _ = hidden.keep();
        Ok(())
    }
}

/// Writes everything.
pub fn write(folder: Folder, results: &Results) -> anyhow::Result<()> {
    let plots = plot::all(results)?;
    let json = serde_json::to_string_pretty(results).context("the results as JSON")?;
    let page = page::page(results, &plots);
    let path = folder.path.join("index.html");
    let pictures = plots.iter().map(|plot| (format!("{}.svg", plot.name), plot.svg.as_str()));
    let texts = [("results.json".to_owned(), json.as_str()), ("index.html".to_owned(), page.as_str())];
    folder.fill(pictures.chain(texts))?;
    eprintln!("written: {} and what it shows", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(of)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_appears_when_everything_is_in_it() {
        let at = tempfile::tempdir().unwrap();
        let folder = Folder::new(&at.path().join("results")).unwrap();
        assert!(names(at.path()).is_empty(), "nothing is made before");
        folder.fill([("a".to_owned(), "x")]).unwrap();
        assert_eq!(
            (names(at.path()), names(&at.path().join("results"))),
            (vec!["results".into()], vec!["a".into()])
        );
    }

    #[test]
    fn of_what_fails_nothing_is_left() {
        let at = tempfile::tempdir().unwrap();
        let folder = Folder::new(&at.path().join("results")).unwrap();
        let error = folder.fill([("a".to_owned(), "x"), ("no/such".to_owned(), "y")]).unwrap_err();
        assert!(error.to_string().starts_with("cannot write "), "{error}");
        assert!(names(at.path()).is_empty());
    }

    #[test]
    fn what_is_there_is_not_overwritten() {
        let at = tempfile::tempdir().unwrap();
        fs::write(at.path().join("results"), "precious").unwrap();
        let error = Folder::new(&at.path().join("results")).err().unwrap().to_string();
        assert!(error.ends_with("it is there already: give a new name, or remove it"), "{error}");
        let error = Folder::new(&at.path().join("no/such")).err().unwrap().to_string();
        assert!(error.starts_with("--output ") && error.contains("no/such"), "{error}");
    }
}
