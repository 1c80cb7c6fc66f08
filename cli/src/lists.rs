//! Starting from lists of peers, in words.

use portolan_runtime::bootstrap::{Bootstrap, BootstrapNews};

/// The next news of a start from lists; without one there are none.
pub(crate) async fn next_of(bootstrap: Option<&mut Bootstrap>) -> Option<BootstrapNews> {
    match bootstrap {
        Some(bootstrap) => futures::StreamExt::next(bootstrap).await,
        None => futures::future::pending().await,
    }
}

/// News in a line; none of dials that have ended, which are told like all others.
pub(crate) fn words(news: &BootstrapNews) -> Option<String> {
    let text = match news {
        BootstrapNews::Listed { url, list } => {
            format!("the list at {url} names {} peers", list.peers.len())
        }
        BootstrapNews::Failed { url, error } => format!("no list at {url}: {error}"),
        BootstrapNews::Remembered { url, list, .. } => {
            let peers = list.peers.len();
            format!("the last good list of {url}, kept on disk, names {peers} peers")
        }
        BootstrapNews::Forgetful(error) => error.to_string(),
        BootstrapNews::Dialling { addr, url, .. } => format!("dialling {addr}, which {url} lists"),
        BootstrapNews::Dialled { .. } | _ => return None,
    };
    Some(text)
}
