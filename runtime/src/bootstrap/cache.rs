//! The last good lists, on disk: for the day on which no source answers.

use super::document::{self, Document, List, ListedPeer};
use crate::http::Url;
use crate::private_file;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The longest file that is read, bytes; ours: some lists at their limits. A longer one is none of ours,
/// and is neither read nor replaced.
const FILE_MAX: u64 = 1 << 20;
/// Lists that are kept, number; ours. When full, those of the URLs that are asked now stay, and the
/// oldest of the others go.
const LISTS_MAX: usize = 8;
/// What the file says that it is.
const FORMAT: &str = "portolan-bootstrap-cache/1";

/// Why lists are not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// What bears the name is something else. It was left alone.
    #[error("{} is no cache of bootstrap lists, and is not replaced by one", path.display())]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("cannot keep bootstrap lists in {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// The lists that were good, newest last.
#[derive(Debug, Default)]
pub(super) struct Cache {
    lists: Vec<Kept>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    url: String,
    /// When it was fetched, seconds since 1970.
    at: u64,
    document: Document,
}

#[derive(Serialize, Deserialize)]
struct Whole {
    format: String,
    lists: Vec<Kept>,
}

impl Cache {
    /// Read the lists in a file; none if there is no such file.
    pub(super) fn read(path: &Path) -> Result<Cache, CacheError> {
        let failed = |error| CacheError::Io { path: path.into(), error };
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Cache::default()),
            Err(error) => return Err(failed(error)),
        };
        let in_the_way = || CacheError::InTheWay { path: path.into() };
        let whole: Whole = serde_json::from_slice(&bytes).map_err(|_| in_the_way())?;
        if whole.format != FORMAT || bytes.len() as u64 > FILE_MAX {
            return Err(in_the_way());
        }
        Ok(Cache { lists: whole.lists })
    }

    /// The list that a URL had when it last had a good one, and when that was.
    pub(super) fn get(&self, url: &Url, allow_private: bool) -> Option<(u64, List)> {
        let url = url.to_string();
        let kept = self.lists.iter().find(|kept| kept.url == url)?;
        let text = serde_json::to_vec(&kept.document).ok()?;
        // Whatever was done to the file: no more is believed of it than of the document.
        document::read(&text, allow_private).ok().map(|list| (kept.at, list))
    }

    /// Keep the list of a URL in place of an older one.
    pub(super) fn put(&mut self, url: &Url, at: u64, list: &List) {
        let url = url.to_string();
        self.lists.retain(|kept| kept.url != url);
        let peers = list.peers.iter().map(ListedPeer::listed).collect();
        let document = Document::new(list.served_by, peers);
        self.lists.push(Kept { url, at, document });
        let more = self.lists.len().saturating_sub(LISTS_MAX);
        self.lists.drain(..more);
    }

    /// Write the lists: whole or not at all, for their owner alone.
    pub(super) fn write(self, path: &Path) -> Result<(), CacheError> {
        let failed = |error: io::Error| CacheError::Io { path: path.into(), error };
        let whole = Whole { format: FORMAT.into(), lists: self.lists };
        let bytes = serde_json::to_vec(&whole).map_err(|error| failed(error.into()))?;
        let mut new = OsString::from(path);
        new.push(format!(".{}.new", std::process::id()));
        let new = PathBuf::from(new);
        // Left behind by a crash of a program with the same number.
        let _ = fs::remove_file(&new);
        private_file::write(&new, &bytes).map_err(failed)?;
        fs::rename(&new, path).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    fn list(ip: &str) -> List {
        let text = format!(
            r#"{{"format": "portolan-bootstrap/1", "peers": [
                {{"addrs": ["/ip4/{ip}/tcp/1/p2p/{PEER}"], "load": 3}}]}}"#
        );
        document::read(text.as_bytes(), true).expect("a list")
    }

    #[test]
    fn the_last_good_list_of_each_url_is_found_again() {
        let scratch = Scratch::new("bootstrap-cache");
        let path = scratch.path("lists.json");
        let url = |n: usize| format!("https://example.org/{n}").parse().expect("a URL");
        let mut cache = Cache::read(&path).expect("there is none yet");
        cache.put(&url(1), 5, &list("44.0.0.1"));
        cache.put(&url(2), 6, &list("10.0.0.1"));
        cache.put(&url(1), 7, &list("44.0.0.2"));
        cache.write(&path).expect("a writable directory");
        let cache = Cache::read(&path).expect("it was written");
        assert_eq!(cache.get(&url(1), false), Some((7, list("44.0.0.2"))));
        assert_eq!(cache.get(&url(2), true), Some((6, list("10.0.0.1"))));
        assert_eq!(cache.get(&url(2), false), None, "no more is believed of it than of the web");
        assert_eq!(cache.get(&url(3), true), None);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(&path).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let mut cache = cache;
        for n in 10..30 {
            cache.put(&url(n), 9, &list("44.0.0.3"));
        }
        assert_eq!(cache.lists.len(), LISTS_MAX);
    }

    #[test]
    fn something_else_is_left_alone() {
        let scratch = Scratch::new("bootstrap-diary");
        let path = scratch.path("precious");
        fs::write(&path, "a diary").expect("a writable directory");
        let error = Cache::read(&path).expect_err("no cache");
        assert!(matches!(error, CacheError::InTheWay { .. }), "{error}");
        let error = Cache::read(scratch.path("").as_path()).expect_err("a directory");
        assert!(matches!(error, CacheError::Io { .. }), "{error}");
    }
}
