//! A place for the files of a test.

use std::fs;
use std::path::PathBuf;

/// A directory of its own under the system's, removed at the end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Make it; no other test has the same name.
    pub(crate) fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("portolan-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        Scratch(path)
    }

    /// The path of a file in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Its files, by name, with their sizes.
    pub(crate) fn files(&self) -> Vec<(String, u64)> {
        let entries = fs::read_dir(&self.0).expect("it exists");
        let named = entries.map(|entry| {
            let entry = entry.expect("it exists");
            let name = entry.file_name().into_string().expect("we named it");
            (name, entry.metadata().expect("it exists").len())
        });
        let mut files: Vec<_> = named.collect();
        files.sort();
        files
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
