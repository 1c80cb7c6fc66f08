//! The node's key pair on disk, in libp2p's protobuf form for private keys.
//!
//! Keys of type ed25519, ecdsa and secp256k1 are read and written. RSA keys are read: they
//! cannot be made here, and a file that holds one is never rewritten.

use crate::private_file;
pub use libp2p_identity::{KeyType, Keypair, PublicKey};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest key file that is read, bytes; ours: an RSA key of 16,384 bits takes 9 KiB.
pub const KEY_FILE_MAX: u64 = 64 * 1_024;

/// Why a key file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is no such file.
    #[error("there is no key file {0}")]
    Missing(PathBuf),
    /// A new key was to be written where a file already is; it was left alone.
    #[error("the key file {0} exists already")]
    Exists(PathBuf),
    /// The file holds no key that can be used.
    #[error("{path} is not a libp2p private key: {detail}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Others than its owner may read the file, or write to it: what it says may be known, or made up.
    #[error(
        "others may access the key file {path} (mode {mode:o}): run `chmod 600 {path}`, or remove it if \
         somebody may have read it"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions, those of owner, group and others.
        mode: u32,
    },
    /// The key has no form on disk (RSA).
    #[error("keys of this type cannot be written: {0}")]
    Unwritable(String),
    /// The file could not be read or written.
    #[error("cannot access the key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// A new ed25519 key pair from the operating system's randomness.
pub fn generate() -> Keypair {
    Keypair::generate_ed25519()
}

/// Read a key pair.
///
/// # Errors
/// [`IdentityError::Missing`] if there is no such file, [`IdentityError::Exposed`] if it is not its
/// owner's alone (on Unix), [`IdentityError::Malformed`] if it is not a private key in libp2p's form.
pub fn load(path: &Path) -> Result<Keypair, IdentityError> {
    let fault = |source| IdentityError::Io { path: path.into(), source };
    let file = File::open(path).map_err(|source| {
        let missing = source.kind() == io::ErrorKind::NotFound;
        if missing { IdentityError::Missing(path.into()) } else { fault(source) }
    })?;
    if let Some(mode) = exposed(&file).map_err(fault)? {
        return Err(IdentityError::Exposed { path: path.into(), mode });
    }
    let mut bytes = Vec::new();
    file.take(KEY_FILE_MAX + 1).read_to_end(&mut bytes).map_err(fault)?;
    let malformed = |detail: String| IdentityError::Malformed { path: path.into(), detail };
    if bytes.is_empty() {
        return Err(malformed("the file is empty".into()));
    }
    if bytes.len() as u64 > KEY_FILE_MAX {
        return Err(malformed(format!("it has more than {KEY_FILE_MAX} bytes")));
    }
    Keypair::from_protobuf_encoding(&bytes).map_err(|error| malformed(error.to_string()))
}

/// Write a key pair into a new file that only its owner may read (mode 0600).
///
/// # Errors
/// [`IdentityError::Exists`] if the file is there already, [`IdentityError::Unwritable`] for an
/// RSA key. A file that could not be written whole is removed.
pub fn store(path: &Path, keypair: &Keypair) -> Result<(), IdentityError> {
    let bytes = keypair
        .to_protobuf_encoding()
        .map_err(|error| IdentityError::Unwritable(error.to_string()))?;
    private_file::write(path, &bytes).map_err(|source| {
        let exists = source.kind() == io::ErrorKind::AlreadyExists;
        let path = path.into();
        if exists { IdentityError::Exists(path) } else { IdentityError::Io { path, source } }
    })
}

/// Read a key pair, or make an ed25519 one and write it if the file is missing.
///
/// # Errors
/// Those of [`load`] and [`store`].
pub fn load_or_create(path: &Path) -> Result<Keypair, IdentityError> {
    match load(path) {
        Err(IdentityError::Missing(_)) => {}
        found => return found,
    }
    let keypair = generate();
    match store(path, &keypair) {
        Ok(()) => Ok(keypair),
        // Another process was faster: its key is the node's.
        Err(IdentityError::Exists(_)) => load(path),
        Err(error) => Err(error),
    }
}

/// The permissions of a file that others may access.
#[cfg(unix)]
fn exposed(file: &File) -> io::Result<Option<u32>> {
    use std::os::unix::fs::PermissionsExt;
    let meta = file.metadata()?;
    let mode = meta.permissions().mode() & 0o777;
    // What is no file of the disk, such as a pipe of the shell's, has nobody else to fear.
    Ok((meta.is_file() && mode & 0o077 != 0).then_some(mode))
}

#[cfg(not(unix))]
fn exposed(_: &File) -> io::Result<Option<u32>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_key_survives_the_disk_and_is_for_its_owner_alone() {
        let scratch = Scratch::new("key");
        for (name, keypair) in [
            ("ed25519", Keypair::generate_ed25519()),
            ("ecdsa", Keypair::generate_ecdsa()),
            ("secp256k1", Keypair::generate_secp256k1()),
        ] {
            let path = scratch.path(name);
            store(&path, &keypair).expect("a writable directory");
            let again = load(&path).expect("what was just written");
            assert_eq!(again.public(), keypair.public(), "{name}");
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                let mode = std::fs::metadata(&path).expect("it exists").permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
            }
        }
    }

    #[test]
    fn an_existing_file_is_never_overwritten() {
        let scratch = Scratch::new("exists");
        let path = scratch.path("key");
        let first = load_or_create(&path).expect("a writable directory");
        let refused = store(&path, &generate());
        assert!(matches!(refused, Err(IdentityError::Exists(_))), "{refused:?}");
        let again = load_or_create(&path).expect("it exists");
        assert_eq!(again.public(), first.public());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let scratch = Scratch::new("wrong");
        let path = scratch.path("key");
        assert!(matches!(load(&path), Err(IdentityError::Missing(_))));
        let too_long = vec![0; usize::try_from(KEY_FILE_MAX).expect("it is small") + 1];
        private_file::write(&path, b"").expect("a writable directory");
        for bytes in [&b""[..], b"\x08\x01\x12\x04abcd", b"-----BEGIN KEY-----", &too_long] {
            std::fs::write(&path, bytes).expect("a writable directory");
            let refused = load(&path);
            assert!(matches!(refused, Err(IdentityError::Malformed { .. })), "{refused:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_may_read_is_refused_with_what_to_do() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new("exposed");
        let path = scratch.path("key");
        store(&path, &generate()).expect("a writable directory");
        for mode in [0o640, 0o604, 0o620, 0o666] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
            let refused = load(&path).expect_err("others may read it").to_string();
            assert!(refused.contains(&format!("mode {mode:o}")), "{refused}");
            assert!(refused.contains("chmod 600") && !refused.contains('\n'), "{refused}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).expect("ours");
        load(&path).expect("its owner's alone");
    }
}
