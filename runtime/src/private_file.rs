//! Files that only their owner may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Make a file that is not there yet and that only its owner may read (mode 0600).
///
/// # Errors
/// Those of the system; [`io::ErrorKind::AlreadyExists`] if anything bears the name.
pub fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Make such a file with these bytes, and wait until the disk has them. A file that could not be
/// written whole is removed.
///
/// # Errors
/// Those of [`create`], and of writing.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).inspect_err(|_| {
        // Half a file helps nobody; that the removal may fail as well changes nothing.
        let _ = fs::remove_file(path);
    })
}
