//! Lists of peers to start from, as they are named on the command line.

use crate::program::args::BootstrapArgs;
use portolan_runtime::bootstrap::BootstrapConfig;
use std::env;
use std::fs;
use std::path::PathBuf;

/// Where to start from; nothing if no URL is named.
pub(crate) fn bootstrap(args: BootstrapArgs, allow_private: bool) -> Option<BootstrapConfig> {
    if args.bootstrap.is_empty() {
        return None;
    }
    let mut config = BootstrapConfig::default();
    config.cache = match args.no_bootstrap_cache {
        true => None,
        false => args.bootstrap_cache.or_else(usual_cache),
    };
    config.urls = args.bootstrap;
    config.insecure_http = args.insecure_http;
    config.allow_private = allow_private;
    Some(config)
}

/// The file in the user's cache directory, one for all lists, which is made if it is missing. Where there is none, or it
/// cannot be made, no lists are kept.
fn usual_cache() -> Option<PathBuf> {
    let absolute =
        |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    let folder = caches.join("portolan");
    if let Err(error) = fs::create_dir_all(&folder) {
        tracing::debug!(%error, "the cache directory cannot be made");
        return None;
    }
    Some(folder.join("bootstrap.json"))
}
